//! The screen of `flm watch`.

use super::{Film, lock, shoot};
use crate::error::{CliError, Result};
use crate::stop;
use burn::tensor::backend::Backend;
use flm::{Frame, Model, SampleOptions, TextTokenizer};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Gauge, Paragraph, Wrap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What to do after a screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Quit,
    /// Draw other noise.
    Noise,
}

/// Time from one step to the next while playing.
const PAUSE: Duration = Duration::from_millis(350);

/// Shows the samples while they are drawn, and after.
pub(super) fn show<B: Backend>(model: &Model<B>, options: &SampleOptions) -> Result<Next> {
    let steps = options.steps_of(model.config(), model.name())?;
    let (film, stop) = (Mutex::default(), AtomicBool::new(false));
    let mut terminal = ratatui::try_init().map_err(|error| {
        ratatui::restore();
        CliError::input(format!("cannot use the terminal: {error}"))
    })?;
    std::thread::scope(|scope| {
        let shooting = scope.spawn(|| shoot(model, options, &film, &stop));
        let mut view = View::new(steps, options.seed, model.tokenizer());
        let next = loop {
            view.play(&lock(&film));
            let drawn = terminal.draw(|frame| view.draw(&lock(&film), frame));
            let drawn = drawn.map_err(|error| CliError::input(format!("cannot draw: {error}")));
            if let Err(error) = drawn {
                break Err(error);
            }
            if stop::asked() {
                break Ok(Next::Quit);
            }
            if let Some(next) = key(&mut view) {
                break Ok(next);
            }
            if shooting.is_finished() && lock(&film).texts.is_empty() {
                break Ok(Next::Quit);
            }
        };
        stop.store(true, Ordering::Relaxed);
        ratatui::restore();
        let shot = shooting
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (next, shot) {
            (Ok(next), Ok(()) | Err(flm::Error::Cancelled { .. })) => Ok(next),
            (Err(error), _) => Err(error),
            (_, Err(error)) => Err(error.into()),
        }
    })
}

/// Waits for a key for a moment and applies it.
fn key(view: &mut View) -> Option<Next> {
    let pressed = match event::poll(Duration::from_millis(30)) {
        Ok(true) => event::read().ok()?,
        _ => return None,
    };
    let Event::Key(KeyEvent {
        code,
        modifiers,
        kind: KeyEventKind::Press,
        ..
    }) = pressed
    else {
        return None;
    };
    match code {
        KeyCode::Char('q') | KeyCode::Esc => return Some(Next::Quit),
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return Some(Next::Quit),
        KeyCode::Char('n') => return Some(Next::Noise),
        KeyCode::Char(' ') => view.toggle(),
        KeyCode::Right => view.step(1),
        KeyCode::Left => view.step(-1),
        _ => {}
    }
    None
}

/// The position in a film.
struct View {
    steps: usize,
    seed: u64,
    /// What stands between two tokens.
    between: &'static str,
    at: usize,
    playing: bool,
    turned: Instant,
    last: usize,
}

impl View {
    fn new(steps: usize, seed: u64, tokenizer: &TextTokenizer) -> Self {
        let first = tokenizer.eos_id().max(tokenizer.pad_id()) + 1;
        let pair = tokenizer.decode_all(&[first, first]).unwrap_or_default();
        let is_apart = pair.contains(' ')
            && tokenizer
                .token(first)
                .is_some_and(|token| !token.contains(' '));
        Self {
            steps,
            seed,
            between: if is_apart { " " } else { "" },
            at: 0,
            playing: true,
            turned: Instant::now(),
            last: 0,
        }
    }

    /// Moves on if it is time; the end is the finished text.
    fn play(&mut self, film: &Film) {
        let is_done = !film.texts.is_empty();
        self.last = if is_done {
            film.steps()
        } else {
            film.steps().saturating_sub(1)
        };
        if self.playing && self.at < self.last && self.turned.elapsed() >= PAUSE {
            self.at += 1;
            self.turned = Instant::now();
        }
    }

    fn toggle(&mut self) {
        self.playing = !self.playing || self.at == self.last;
        if self.playing && self.at == self.last {
            self.at = 0;
        }
    }

    fn step(&mut self, by: isize) {
        self.playing = false;
        self.at = self.at.saturating_add_signed(by).min(self.last);
    }

    fn draw(&self, film: &Film, frame: &mut ratatui::Frame<'_>) {
        let rows = Layout::vertical([
            Constraint::Length(1),
            Constraint::Min(1),
            Constraint::Length(1),
        ]);
        let [top, middle, bottom] = rows.areas(frame.area());
        let tau = film.samples.first().and_then(|sample| sample.get(self.at));
        let tau = tau.map_or(1.0, |frame| frame.tau.clamp(0.0, 1.0));
        let label = if self.at < film.steps() {
            format!("step {} of {}, τ = {tau:.2}", self.at + 1, self.steps)
        } else if film.texts.is_empty() {
            "sampling …".to_owned()
        } else {
            format!("after {} steps", self.steps)
        };
        let share = if film.steps() == 0 { 0.0 } else { tau };
        frame.render_widget(Gauge::default().ratio(share).label(label), top);
        let lines: Vec<Line<'_>> = film
            .samples
            .iter()
            .enumerate()
            .flat_map(|(i, sample)| {
                [
                    self.line(sample.get(self.at), film.texts.get(i)),
                    Line::default(),
                ]
            })
            .collect();
        let title = format!(" seed {} ", self.seed);
        let body = Paragraph::new(lines).wrap(Wrap { trim: false });
        frame.render_widget(body.block(Block::bordered().title(title)), middle);
        let keys = "space play · ← → step · n other noise · q quit";
        frame.render_widget(Paragraph::new(keys).style(Style::new().dim()), bottom);
    }

    /// The likeliest tokens of a frame, or the finished text.
    fn line<'a>(&self, frame: Option<&'a Frame>, text: Option<&'a String>) -> Line<'a> {
        match (frame, text) {
            (Some(frame), _) => {
                let spans = frame.positions.iter().filter_map(|likely| likely.first());
                let spans = spans.map(|likely| {
                    let piece = format!("{}{}", piece(&likely.token), self.between);
                    Span::styled(piece, brightness(likely.probability))
                });
                Line::from_iter(spans)
            }
            (None, Some(text)) => Line::from(text.replace('\n', " ⏎ ")),
            (None, None) => Line::default(),
        }
    }
}

/// A token for people; special tokens are dots.
fn piece(token: &str) -> String {
    let is_special = [('[', ']'), ('<', '>')]
        .iter()
        .any(|(open, close)| token.starts_with(*open) && token.ends_with(*close));
    if is_special && token.len() > 2 {
        return "·".to_owned();
    }
    token.replace(['Ġ', '▁'], " ").replace(['Ċ', '\n'], "⏎")
}

fn brightness(probability: f64) -> Style {
    match probability {
        p if p >= 0.9 => Style::new().add_modifier(Modifier::BOLD),
        p if p >= 0.5 => Style::new(),
        p if p >= 0.2 => Style::new().fg(Color::Gray).add_modifier(Modifier::DIM),
        _ => Style::new().fg(Color::DarkGray).add_modifier(Modifier::DIM),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flm::LikelyToken;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn frame(tau: f64, words: [&str; 2]) -> Frame {
        let likely = |word: &str| {
            vec![LikelyToken {
                id: 0,
                token: word.to_owned(),
                probability: tau,
            }]
        };
        Frame {
            tau,
            t: tau,
            tau_target: tau,
            positions: words.iter().map(|word| likely(word)).collect(),
        }
    }

    #[test]
    fn the_screen_shows_a_step_and_then_the_text() {
        let words = TextTokenizer::from_words(["old", "king"]).unwrap();
        let mut film = Film {
            samples: vec![vec![
                frame(0.0, ["king", "[PAD]"]),
                frame(0.5, ["old", "king"]),
            ]],
            texts: Vec::new(),
        };
        let mut view = View::new(2, 7, &words);
        let mut terminal = Terminal::new(TestBackend::new(48, 6)).unwrap();
        let mut seen = |view: &mut View, film: &Film| {
            view.play(film);
            terminal.draw(|frame| view.draw(film, frame)).unwrap();
            terminal.backend().to_string()
        };
        let first = seen(&mut view, &film);
        assert!(
            first.contains("step 1 of 2, τ = 0.00") && first.contains("king ·"),
            "{first}"
        );
        assert!(first.contains("seed 7"), "{first}");
        view.step(5);
        let second = seen(&mut view, &film);
        assert!(second.contains("old king"), "{second}");
        film.texts.push("old kings".to_owned());
        view.play(&film);
        view.step(1);
        let last = seen(&mut view, &film);
        assert!(
            last.contains("after 2 steps") && last.contains("old kings"),
            "{last}"
        );
    }
}
