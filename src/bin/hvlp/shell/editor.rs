//! The line editor of the shell: history that outlives it, completion of commands and topics.

use std::path::PathBuf;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{
    CompletionType, Config, Context, ExternalPrinter, Helper, Highlighter, Hinter, Validator,
};

use super::command::COMMANDS;
use super::session::Print;
use crate::exit::Failure;

pub(super) struct Editor {
    editor: rustyline::Editor<Words, DefaultHistory>,
    history: Option<PathBuf>,
}

impl Editor {
    pub(super) fn new() -> Result<Self, Failure> {
        let config = Config::builder()
            .max_history_size(HISTORY_MAX)
            .and_then(|config| config.history_ignore_dups(true))
            .map_err(failure)?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .build();
        let mut editor = rustyline::Editor::with_config(config).map_err(failure)?;
        editor.set_helper(Some(Words { topics: Vec::new() }));
        let history = history_path();
        if let Some(path) = &history {
            // There is none before the first time.
            let _ = editor.load_history(path);
        }
        Ok(Self { editor, history })
    }

    /// Prints above the line that is being typed, from any thread.
    pub(super) fn printer(&mut self) -> Result<Print, Failure> {
        let mut printer = self.editor.create_external_printer().map_err(failure)?;
        Ok(Box::new(move |line| {
            // The terminal has gone, and the shell with it.
            let _ = printer.print(format!("{line}\n"));
        }))
    }

    /// The next line; `None` at the end of input.
    pub(super) fn read_line(&mut self) -> Result<Option<String>, Failure> {
        loop {
            return match self.editor.readline("hvlp> ") {
                Ok(line) => {
                    // The payload of CONNECT is a secret where brokers ask for one.
                    if !line.trim_start().starts_with("connect ") {
                        // A history that cannot take more is no reason to stop.
                        let _ = self.editor.add_history_entry(&line);
                    }
                    Ok(Some(line))
                }
                // Ctrl-C drops the line, as shells do.
                Err(ReadlineError::Interrupted) => continue,
                Err(ReadlineError::Eof) => Ok(None),
                Err(error) => Err(failure(error)),
            };
        }
    }

    /// Offers these topics, and those of before.
    pub(super) fn know_topics(&mut self, topics: Vec<String>) {
        if let Some(words) = self.editor.helper_mut() {
            words.topics.extend(topics);
            words.topics.sort();
            words.topics.dedup();
        }
    }

    /// Keeps the history for the next time.
    pub(super) fn save(&mut self) {
        if let Some(path) = &self.history
            && let Some(folder) = path.parent()
        {
            // Without a place for it there is no history, and the shell works all the same.
            let _ = std::fs::create_dir_all(folder);
            let _ = self.editor.save_history(path);
        }
    }
}

/// Lines that are remembered.
const HISTORY_MAX: usize = 1000;

/// Where the user's programs keep such things.
fn history_path() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.filter(|path| path.is_absolute());
    let state = state.or_else(|| {
        let home = PathBuf::from(std::env::var_os("HOME")?);
        Some(home.join(".local/state"))
    });
    state.map(|state| state.join("hvlp/history"))
}

fn failure(error: ReadlineError) -> Failure {
    Failure::Other(error.to_string())
}

/// What can be completed.
#[derive(Helper, Highlighter, Hinter, Validator)]
struct Words {
    topics: Vec<String>,
}

/// The first word is a command, every other one may be a topic.
impl Completer for Words {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> Result<(usize, Vec<String>), ReadlineError> {
        let typed = line.get(..position).unwrap_or(line);
        let start = typed.rfind(' ').map_or(0, |space| space + 1);
        let word = typed.get(start..).unwrap_or_default();
        let known: Vec<&str> = if start == 0 {
            COMMANDS.iter().map(|&(name, ..)| name).collect()
        } else {
            self.topics.iter().map(String::as_str).collect()
        };
        let fitting = known.into_iter().filter(|known| known.starts_with(word));
        Ok((
            start,
            fitting.map(|fitting| format!("{fitting} ")).collect(),
        ))
    }
}
