//! `quell top`: the live trees of the project, again and again, with keys to plan and to cancel.

mod screen;
mod view;

use std::{
    io::IsTerminal as _,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use reqwest::Method;
use serde_json::json;
use supervisor::{NodeView, PlanView};
use tokio::sync::mpsc;

use self::{
    screen::Screen,
    view::{Aim, Key, View, Wish},
};
use super::{cancel::not_cancelled, look::fetch_node, plan::fetch_plan};
use crate::{
    args::{NodeArgs, Output},
    client::Client,
    config::ClientConfig,
    output,
    output::Usage,
    signals::EndSignals,
};

/// Between two looks at the node.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How soon the thread that reads keys sees that it is over.
const KEY_WAIT: Duration = Duration::from_millis(100);
/// Keys and answers that wait to be seen; nobody types faster.
const WAITING: usize = 64;

/// What comes in.
enum News {
    Key(Key),
    /// The terminal has another size.
    Resized,
    Node(anyhow::Result<NodeView>),
    Plan(Aim, anyhow::Result<PlanView>),
    Cancelled(anyhow::Result<String>),
}

pub(crate) async fn top(node: &NodeArgs) -> anyhow::Result<ExitCode> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Usage("top is for a terminal; `quell ls` and `quell tree` print once".to_owned()).into());
    }
    let client = Client::new(ClientConfig::of(node)?)?;
    // Whatever is wrong with the node or the credential is told before the screen is taken.
    let mut view = View::new(fetch_node(&client).await?);
    let mut signals = EndSignals::listen()?;
    let screen = Screen::enter()?;
    let (news, mut inbox) = mpsc::channel(WAITING);
    let over = Arc::new(AtomicBool::new(false));
    let keys = std::thread::Builder::new().name("keys".into()).spawn({
        let (news, over) = (news.clone(), Arc::clone(&over));
        move || read_keys(&news, &over)
    })?;
    let shown = tokio::select! {
        shown = watch(&client, &screen, &mut view, &mut inbox, &news) => shown,
        () = signals.next() => Ok(()),
    };
    over.store(true, Ordering::Relaxed);
    inbox.close(); // whoever waits for room in it is told
    if keys.join().is_err() {
        output::note("quell: the keys were no longer read");
    }
    drop(screen);
    shown.map(|()| ExitCode::SUCCESS)
}

async fn watch(
    client: &Client,
    screen: &Screen,
    view: &mut View,
    inbox: &mut mpsc::Receiver<News>,
    news: &mpsc::Sender<News>,
) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(LOOK_AGAIN);
    // A node that answers slowly is not asked twice at once.
    let mut looking = false;
    loop {
        screen.draw(view)?;
        let wish = tokio::select! {
            _ = tick.tick() => if looking { Wish::Nothing } else { Wish::Look },
            came = inbox.recv() => match came {
                None => return Ok(()),
                Some(News::Key(key)) => view.key(key),
                Some(News::Resized) => Wish::Nothing,
                Some(News::Node(node)) => {
                    looking = false;
                    view.look(node);
                    Wish::Nothing
                }
                Some(News::Plan(aim, plan)) => view.plan(aim, plan),
                Some(News::Cancelled(said)) => view.cancelled(said),
            },
        };
        looking |= wish == Wish::Look;
        if wish == Wish::Quit {
            return Ok(());
        }
        fulfil(wish, client, news);
    }
}

/// Asks the node in a task of its own: keys are heard meanwhile.
fn fulfil(wish: Wish, client: &Client, news: &mpsc::Sender<News>) {
    let (client, news) = (client.clone(), news.clone());
    tokio::spawn(async move {
        let came = match wish {
            Wish::Nothing | Wish::Quit => return,
            Wish::Look => News::Node(fetch_node(&client).await),
            Wish::Plan(aim) => {
                let plan = fetch_plan(&client, &aim.request, aim.recursive, aim.force).await;
                News::Plan(aim, plan)
            }
            Wish::Cancel(aim) => News::Cancelled(cancel(&client, &aim).await),
        };
        drop(news.send(came).await); // closed: nobody looks any more
    });
}

/// Cancels as anybody would; what it came to, in a line.
async fn cancel(client: &Client, aim: &Aim) -> anyhow::Result<String> {
    let body = json!({
        "request_id": aim.request, "recursive": aim.recursive, "force": aim.force, "reason": "quell top",
    });
    let path = client.function(&aim.function, "/cancel");
    let reply = client.send(Method::POST, &path, &[], Some(body.to_string().into_bytes())).await?;
    let header = |name| reply.header(name).unwrap_or_default().to_owned();
    if !reply.is_success() {
        return Err(not_cancelled(&aim.request, reply.refusal(), Output::Table));
    }
    Ok(format!("{} {}, receipt {}", header("X-Quell-Stop"), aim.request, header("X-Quell-Cancel-Id")))
}

fn read_keys(news: &mpsc::Sender<News>, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        match event::poll(KEY_WAIT) {
            Ok(false) => continue,
            Ok(true) => {}
            Err(_) => return, // no terminal any more: a signal tells, too
        }
        let came = match event::read() {
            Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => key_of(key).map(News::Key),
            Ok(Event::Resize(..)) => Some(News::Resized),
            Ok(_) => None,
            Err(_) => return,
        };
        if came.is_some_and(|came| news.blocking_send(came).is_err()) {
            return;
        }
    }
}

fn key_of(key: KeyEvent) -> Option<Key> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return Some(if key.code == KeyCode::Char('c') { Key::Quit } else { Key::Other });
    }
    Some(match key.code {
        KeyCode::Up | KeyCode::Char('k') => Key::Up,
        KeyCode::Down | KeyCode::Char('j') => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Enter | KeyCode::Char('p') => Key::Plan,
        KeyCode::Char('c') => Key::Cancel,
        KeyCode::Char('r') => Key::Recursive,
        KeyCode::Char('f') => Key::Force,
        KeyCode::Char('y') => Key::Yes,
        KeyCode::Char('n') | KeyCode::Esc => Key::No,
        KeyCode::Char('?' | 'h') => Key::Help,
        KeyCode::Char('q') => Key::Quit,
        // Some of them no terminal sends alone; they are none that anybody typed.
        KeyCode::Modifier(_) | KeyCode::Null => return None,
        _ => Key::Other,
    })
}
