//! `hvlp`: publish, subscribe, measure and explore from the command line.
//!
//! Data goes to standard output, talk to standard error. Arguments become typed values once; each
//! subcommand has its file.

use std::process::ExitCode;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

mod exit;
mod interruption;
mod output;
mod ping;
mod publish;
mod server;
mod shell;
mod subscribe;

use self::exit::{Exit, Failure};
use self::output::talk;
use self::server::Server;

/// Publish and subscribe with an HVLP broker.
#[derive(Debug, Parser)]
#[command(name = "hvlp", version, propagate_version = true, after_help = AFTER_HELP)]
struct Arguments {
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    #[command(visible_alias = "publish")]
    Pub(publish::Publish),
    #[command(visible_alias = "subscribe")]
    Sub(subscribe::Subscribe),
    Ping(ping::Ping),
    Shell(shell::Shell),
}

const AFTER_HELP: &str = "\
Each option has a variable HVLP_<OPTION>, for example HVLP_SERVER.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 nobody answers there, 4 the broker refuses the
login, 5 time-out before -C messages; interrupted by Ctrl-C 130, as shells report it (sub
prints what it has first; ping prints its summary and ends with 0).";

fn main() -> ExitCode {
    let command = with_variables(Arguments::command());
    let parsed = command
        .try_get_matches()
        .and_then(|matches| Arguments::from_arg_matches(&matches));
    let arguments = match parsed {
        Ok(arguments) => arguments,
        Err(error) => return explain(&error),
    };
    match run(&arguments) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            let exit = failure.exit();
            if exit != Exit::Done {
                talk(format_args!("hvlp: {failure}"));
                if arguments.server.debug {
                    talk(format_args!("hvlp: {failure:?}"));
                }
            }
            exit.into()
        }
    }
}

fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let server = &arguments.server;
    match &arguments.task {
        Task::Pub(publish) => publish.run(server),
        Task::Sub(subscribe) => subscribe.run(server),
        Task::Ping(ping) => ping.run(server),
        Task::Shell(shell) => shell.run(server),
    }
}

/// Gives every option its variable, in one place.
fn with_variables(command: Command) -> Command {
    let command = command.mut_args(|argument| {
        let Some(long) = argument.get_long() else {
            return argument;
        };
        let name = format!("HVLP_{}", long.replace('-', "_").to_uppercase());
        // A switch in a variable is on by `1`, `true` or `yes`, as people expect.
        let argument = match argument.get_action() {
            ArgAction::SetTrue => argument.value_parser(BoolishValueParser::new()),
            _ => argument,
        };
        // The command line is built once and lives as long as the program.
        argument.env(&*name.leak()).hide_env(true)
    });
    command.mut_subcommands(with_variables)
}

/// Help, version, or what is wrong with the arguments.
fn explain(error: &clap::Error) -> ExitCode {
    let mut arguments = std::env::args().skip_while(|argument| argument != "-h");
    if arguments.next().is_some() && arguments.next().is_some_and(|next| !next.starts_with('-')) {
        talk("-h is this help; the host is -H or -s");
    }
    // Nobody is left to tell if this cannot be printed.
    let _ = error.print();
    if error.use_stderr() {
        Exit::Usage.into()
    } else {
        Exit::Done.into()
    }
}
