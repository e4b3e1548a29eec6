//! The README keeps its word: what it names exists, and what it tells to type has a meaning.
#![cfg(all(feature = "client", feature = "control", feature = "cli"))]
#![allow(
    clippy::unwrap_used,
    reason = "what a test cannot go on without has failed it"
)]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The table behind `<!-- options of hvlp-broker -->` has an option in each first cell.
#[test]
fn the_table_of_options_is_what_help_lists() {
    let options = table("options of hvlp-broker");
    let in_readme = options.iter().filter_map(|row| first_option(&row[0]));
    let in_readme: Vec<_> = in_readme.collect();

    let mut broker = Command::new(env!("CARGO_BIN_EXE_hvlp-broker"));
    let output = broker.arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let options = help
        .lines()
        .filter(|line| line.trim_start().starts_with('-'));
    let in_help: Vec<_> = options.filter_map(first_option).collect();

    assert!(
        !in_help.is_empty(),
        "`hvlp-broker --help` lists no option:\n{help}"
    );
    assert_eq!(
        in_readme, in_help,
        "README.md: list the options as `hvlp-broker --help` does"
    );
}

/// The table behind `<!-- promises -->` has the name of a test in each second cell.
#[test]
fn every_promise_names_a_test_that_exists() {
    let tests = test_names();
    let promises = table("promises");
    assert!(!promises.is_empty());
    for row in promises {
        let (promise, name) = (&row[0], row[1].trim_matches('`'));
        assert!(
            tests.iter().any(|test| test == name),
            "README.md: no test is called {name}; name the one that holds \"{promise}\""
        );
    }
}

/// Nobody listens where they are sent, so none goes further than its arguments.
#[test]
fn every_command_line_of_the_client_is_understood() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let lines = command_lines();
    assert!(lines.len() > 4, "{lines:?}");
    for line in lines {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hvlp"));
        let variables = std::env::vars_os().map(|(name, _)| name);
        for name in variables.filter(|name| name.to_string_lossy().starts_with("HVLP_")) {
            command.env_remove(name);
        }
        command.args(line.split_whitespace().skip(1));
        command.env("HVLP_SERVER", &nobody).stdin(Stdio::null());
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 3)), "README.md: `{line}`: {error}");
    }
}

/// Frames stand between back quotes, as bytes in hexadecimal.
#[test]
fn every_frame_that_is_shown_is_a_conformance_vector() {
    let vectors = ["protocol.json", "extensions.json"]
        .map(|file| fs::read_to_string(root().join("tests/vectors").join(file)).unwrap())
        .concat();
    let page = fs::read_to_string(root().join("docs/protocol.md")).unwrap();
    let text = readme() + &page;
    let is_byte = |word: &str| word.len() == 2 && u8::from_str_radix(word, 16).is_ok();
    let frames = text.split('`').filter(|quoted| quoted.contains(' '));
    let frames = frames.filter(|quoted| quoted.split(' ').all(is_byte));
    let frames: Vec<&str> = frames.collect();
    assert!(frames.len() >= 10, "{frames:?}");
    for frame in frames {
        assert!(
            vectors.contains(&format!("\"bytes\": \"{}\"", frame.to_lowercase())),
            "tests/vectors/: add a case for {frame} to protocol.json or extensions.json"
        );
    }
}

/// What begins with `hvlp ` between back quotes or in a block, without redirection and comment.
fn command_lines() -> Vec<String> {
    let readme = readme();
    let words = readme.split(['`', '\n']);
    let commands = words.filter(|words| words.starts_with("hvlp "));
    let commands = commands.map(|words| words.split(['<', '#']).next().unwrap_or_default());
    commands.map(str::to_owned).collect()
}

/// The cells of the table behind `<!-- mark -->`, without its two lines of headings.
fn table(mark: &str) -> Vec<Vec<String>> {
    let readme = readme();
    let mark = format!("<!-- {mark} -->\n");
    let (_, behind) = readme
        .split_once(&mark)
        .unwrap_or_else(|| panic!("README.md: put `{}` above its table", mark.trim_end()));
    let lines = behind.lines().skip_while(|line| line.is_empty());
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    let cells = |row: &str| {
        let row = row.trim_matches('|');
        row.split(" | ").map(|cell| cell.trim().into()).collect()
    };
    rows.map(cells).collect()
}

/// `--listen` of "-l, --listen <ADDR>  where to listen".
fn first_option(text: impl AsRef<str>) -> Option<String> {
    let (_, name) = text.as_ref().split_once("--")?;
    let is_of_name = |character: &char| character.is_ascii_alphanumeric() || *character == '-';
    Some(name.chars().take_while(is_of_name).collect())
}

/// The names of all functions behind `#[test]`.
fn test_names() -> Vec<String> {
    let mut files = Vec::new();
    for folder in ["tests", "src"] {
        collect(&root().join(folder), &mut files);
    }
    let mut names = Vec::new();
    for file in files {
        let source = fs::read_to_string(file).unwrap();
        let mut is_test = false;
        for line in source.lines().map(str::trim) {
            if let Some(declared) = line.strip_prefix("fn ") {
                let name = declared.split('(').next().filter(|_| is_test);
                names.extend(name.map(str::to_owned));
                is_test = false;
            }
            is_test |= line == "#[test]";
        }
    }
    names
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
