//! The terminal while it is ours: given back as it was, however it ends.

use std::io::{self, Write as _, stdout};

use crossterm::{
    cursor::{Hide, MoveTo, Show},
    execute, queue,
    style::{Attribute, Print, SetAttribute},
    terminal::{
        Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
    },
};

use super::view::{Line, View};

/// Dropping it gives the terminal back.
pub(super) struct Screen(());

impl Screen {
    pub(super) fn enter() -> io::Result<Self> {
        // A panic would be printed onto the screen that is about to go, in a mode without lines.
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
        enable_raw_mode()?;
        let screen = Self(()); // from here on it is given back
        execute!(stdout(), EnterAlternateScreen, Hide)?;
        Ok(screen)
    }

    pub(super) fn draw(&self, view: &mut View) -> io::Result<()> {
        let (width, height) = size()?;
        let mut out = stdout().lock();
        let lines = view.lines(usize::from(width), usize::from(height));
        for (at, Line { text, marked }) in (0..height).zip(lines) {
            queue!(out, MoveTo(0, at))?;
            if marked {
                queue!(out, SetAttribute(Attribute::Reverse), Print(text), SetAttribute(Attribute::Reset))?;
            } else {
                queue!(out, Print(text))?;
            }
            queue!(out, Clear(ClearType::UntilNewLine))?;
        }
        queue!(out, Clear(ClearType::FromCursorDown))?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Nobody can be told where that fails: the terminal is gone.
fn give_back() {
    drop(execute!(stdout(), LeaveAlternateScreen, Show));
    drop(disable_raw_mode());
}
