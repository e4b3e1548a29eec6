//! `hvlp shell`: the interactive client.
//!
//! On a terminal with line editing, history and completion; from a pipe line by line, so that it
//! can be scripted.

use std::io::{self, BufRead, IsTerminal, Write};

mod command;
mod editor;
mod session;

use self::command::parse;
use self::editor::Editor;
use self::session::{Print, Session};
use crate::exit::{Exit, Failure};
use crate::output::talk;
use crate::server::Server;

/// Explore the protocol by hand; `help` lists the commands
#[derive(Debug, clap::Args)]
pub(crate) struct Shell {}

impl Shell {
    pub(crate) fn run(&self, server: &Server) -> Result<Exit, Failure> {
        if io::stdin().is_terminal() && io::stdout().is_terminal() {
            interactive(server)
        } else {
            scripted(server)
        }
    }
}

fn interactive(server: &Server) -> Result<Exit, Failure> {
    let mut editor = Editor::new()?;
    let mut session = Session::new(server, editor.printer()?)?;
    if !server.quiet {
        talk("hvlp shell; help lists the commands, quit leaves");
    }
    while let Some(line) = editor.read_line()? {
        if !execute(&mut session, &line) {
            editor.save();
            return Ok(Exit::Done);
        }
        editor.know_topics(session.topics());
    }
    editor.save();
    leave(&mut session);
    Ok(Exit::Done)
}

/// The exit code tells whether all lines could be done.
fn scripted(server: &Server) -> Result<Exit, Failure> {
    let print: Print = Box::new(|line| {
        // Who does not read any more does not miss it.
        let _ = writeln!(io::stdout().lock(), "{line}");
    });
    let mut session = Session::new(server, print)?;
    let mut exit = Exit::Done;
    for line in io::stdin().lock().lines() {
        let name = "standard input".into();
        let line = line.map_err(|source| Failure::Input { name, source })?;
        match parse(&line) {
            Ok(None) => {}
            Ok(Some(command::Command::Quit)) => break,
            Ok(Some(command)) => {
                if let Err(error) = session.execute(command) {
                    talk(error);
                    exit = Exit::Failed;
                }
            }
            Err(error) => {
                talk(error);
                exit = Exit::Usage;
            }
        }
    }
    leave(&mut session);
    Ok(exit)
}

/// Does one line; whether another one is wanted.
fn execute(session: &mut Session, line: &str) -> bool {
    match parse(line) {
        Ok(None) => {}
        Ok(Some(command)) => {
            let quit = matches!(command, command::Command::Quit);
            if let Err(error) = session.execute(command) {
                talk(error);
            }
            return !quit;
        }
        Err(error) => talk(error),
    }
    true
}

fn leave(session: &mut Session) {
    if let Err(error) = session.quit() {
        talk(error);
    }
}
