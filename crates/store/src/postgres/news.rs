//! The connection that listens, and what it hears.

use std::{future::poll_fn, sync::Arc, time::Duration};

use cancel::CancelId;
use tokio::sync::broadcast;
use tokio_postgres::{AsyncMessage, Notification};

use super::{
    connection::{CONNECT, Connector, within},
    credentials::Known,
    fault::Fault,
};
use crate::News;

/// News kept for a reader that is slow: one who misses some looks at the rows, as he does after a lost connection.
pub(crate) const KEPT: usize = 1_024;
/// Between two attempts to listen again: the first at once, then twice as long each time, up to the most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MOST_PAUSE: Duration = Duration::from_secs(2);

const LISTEN: &str = "LISTEN quell_parts; LISTEN quell_reported; LISTEN quell_queue; LISTEN quell_functions; LISTEN quell_credentials; \
                      LISTEN quell_bulks";

/// What hears.
pub(crate) struct Listener {
    pub(crate) connector: Connector,
    pub(crate) node: Arc<str>,
    pub(crate) news: broadcast::Sender<News>,
    pub(crate) known: Arc<Known>,
}

impl Listener {
    /// Listens for ever, over lost connections; whoever starts it ends it by dropping.
    pub(crate) async fn run(self, listening: tokio::sync::oneshot::Sender<()>) {
        let (mut pause, mut listening) = (FIRST_PAUSE, Some(listening));
        loop {
            let heard = self.listen(&mut listening, &mut pause).await;
            if let Err(fault) = heard {
                tracing::warn!(error = %fault, "the connection for notifications is lost");
            }
            self.known.forget(); // what is not told is not known either
            tokio::time::sleep(pause).await; // nothing tells when a server is back
            pause = (pause * 2).min(MOST_PAUSE);
        }
    }

    async fn listen(
        &self,
        listening: &mut Option<tokio::sync::oneshot::Sender<()>>,
        pause: &mut Duration,
    ) -> Result<(), Fault> {
        let mut moves = self.connector.moves();
        let (client, mut connection) = self.connector.dial().await?;
        let mut ask = std::pin::pin!(within(CONNECT, client.batch_execute(LISTEN)));
        let mut asked = false;
        loop {
            tokio::select! {
                done = &mut ask, if !asked => {
                    done??;
                    asked = true;
                    *pause = FIRST_PAUSE;
                    match listening.take() {
                        Some(first) => drop(first.send(())),
                        None => {
                            self.known.forget();
                            self.tell(News::Again);
                        }
                    }
                }
                // Who listens to a server that takes no writes hears nothing.
                _ = moves.changed() => return Ok(()),
                message = poll_fn(|cx| connection.poll_message(cx)) => match message {
                    Some(Ok(AsyncMessage::Notification(told))) => self.hear(&told),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.into()),
                    None => return Ok(()),
                }
            }
        }
    }

    fn hear(&self, told: &Notification) {
        match told.channel() {
            "quell_parts" if told.payload() == &*self.node => self.tell(News::Parts),
            "quell_reported" => match u128::from_str_radix(told.payload(), 16) {
                Ok(cancel) => self.tell(News::Reported(CancelId(cancel))),
                Err(error) => tracing::debug!(%error, "a notification that is not ours"),
            },
            "quell_queue" => self.tell(News::Queue),
            "quell_bulks" if told.payload() == &*self.node => self.tell(News::Bulks),
            "quell_functions" => self.tell(News::Functions),
            "quell_credentials" => {
                self.known.forget();
                self.tell(News::Credentials);
            }
            _ => {}
        }
    }

    fn tell(&self, news: News) {
        self.news.send(news).ok(); // nobody may listen
    }
}
