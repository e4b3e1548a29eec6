//! Reads the source tree and fails with a sentence that says what to do.
//!
//! Each rule costs nothing to keep from the first day on. A rule that makes a piece of code worse
//! is wrong there: take the file out of the rule here, and say why beside it.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// What may touch a socket.
const IO_LAYERS: [&str; 7] = [
    "src/reactor",
    "src/broker",
    "src/client",
    "src/bin/",
    // Serves HTTP, on sockets and a thread of its own.
    "src/control",
    // Turns texts into addresses, name resolution included.
    "src/address.rs",
    // What the broker's and the client's sockets have in common.
    "src/loopback.rs",
];

/// What names a socket or one of the crates that drive it. An address alone is a value.
const IO_WORDS: [&str; 11] = [
    "std::os",
    "ToSocketAddrs",
    "UdpSocket",
    "mio",
    "socket2",
    "rustix",
    "io_uring",
    "TcpStream",
    "TcpListener",
    "UnixStream",
    "UnixListener",
];

/// What is driven by hand in tests: bytes, keys and the time come in as arguments.
const CORE: [&str; 8] = [
    "src/packet",
    "src/register",
    "src/session.rs",
    "src/session/",
    "src/outbound",
    "src/arena.rs",
    "src/shard",
    "src/mesh.rs",
];

/// Clocks, threads and sources of random numbers.
const IMPURE_WORDS: [&str; 9] = [
    "Instant::now",
    "SystemTime",
    "std::thread",
    "thread::spawn",
    "thread_local",
    "rand",
    "fastrand",
    "getrandom",
    "std::env",
];

const ASYNC_AND_HTTP_WORDS: [&str; 5] = ["tokio", "hyper", "axum", "async_nats", "async fn"];

/// Lines of a file before its tests; more is a second noun that wants a file of its own.
const FILE_LINES_MAX: usize = 500;
const COLUMNS_MAX: usize = 100;

/// A text file of the repository.
struct Source {
    /// From the root of the repository, with slashes.
    path: String,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        self.has_extension(&["rs"])
    }

    fn has_extension(&self, extensions: &[&str]) -> bool {
        let extension = Path::new(&self.path).extension().unwrap_or_default();
        extensions.iter().any(|candidate| extension == *candidate)
    }

    fn is_under(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }

    /// Numbered lines of Rust without comments, up to the file's own tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.before_tests().map(|(number, line)| {
            let code = line.split("//").next().unwrap_or_default();
            (number, code)
        })
    }

    fn before_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_test = |line: &str| line.trim_start().starts_with("#[cfg(test)]");
        self.lines().take_while(move |(_, line)| !is_test(line))
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }
}

#[test]
fn every_module_begins_with_a_sentence_about_itself() {
    let first_line = |source: &Source| source.text.lines().next().unwrap_or_default().to_owned();
    report(
        rust_sources()
            .iter()
            .filter(|source| !first_line(source).starts_with("//! "))
            .map(|source| {
                let path = &source.path;
                format!("{path}:1: begin the module with `//! ` and one sentence: what it is")
            }),
    );
}

#[test]
fn sockets_are_touched_by_the_shell_alone() {
    report(words_outside(
        &IO_WORDS,
        |source| source.is_under(&["src/"]) && !source.is_under(&IO_LAYERS),
        "belongs to a socket: move it under src/reactor, src/broker or src/client, and hand the \
         rest bytes and keys",
    ));
}

#[test]
fn the_core_has_no_clock_no_thread_and_no_dice() {
    report(words_outside(
        &IMPURE_WORDS,
        |source| source.is_under(&CORE),
        "cannot be driven by hand: take the time or the seed as an argument",
    ));
}

/// Setting the clock of the host closes nobody and delays nothing.
#[test]
fn g10_no_deadline_asks_the_wall_clock() {
    report(words_outside(
        &["SystemTime", "UNIX_EPOCH", "jiff"],
        // Dates that people read.
        |source| source.is_under(&["src/"]) && !source.is_under(&["src/control", "src/bin"]),
        "may be set at any time: use Instant, which goes on",
    ));
}

#[test]
fn async_and_http_stay_in_the_control_plane_and_its_own_client() {
    let rooms = ["src/control", "src/client/asynchronous"];
    report(words_outside(
        &ASYNC_AND_HTTP_WORDS,
        |source| source.is_under(&["src/"]) && !source.is_under(&rooms),
        "has no place on the data plane: move it under src/control",
    ));
}

#[test]
fn unsafe_code_appears_in_the_engine_on_completion_alone() {
    report(words_outside(
        &["unsafe"],
        |source| !source.path.starts_with("src/reactor/uring/"),
        "is not needed here: find the safe form, or a crate that has it",
    ));
}

#[test]
fn nothing_is_put_off_in_a_comment() {
    // Written in two parts, so that this file does not find itself.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
    ];
    report(lines_with(
        &words,
        "puts something off",
        |_| true,
        "do it, or open an issue and delete the note",
    ));
}

#[test]
fn no_path_of_one_machine_is_written_down() {
    let words = [
        concat!("/home", "/"),
        concat!("/root", "/"),
        concat!("/Users", "/"),
    ];
    report(lines_with(
        &words,
        "is a path of one machine",
        |_| true,
        "write it relative to the repository, or as a setting",
    ));
}

#[test]
fn no_file_is_empty() {
    report(
        sources()
            .iter()
            .filter(|source| source.text.trim().is_empty())
            .map(|source| format!("{}:1: the file is empty: fill it or delete it", source.path)),
    );
}

#[test]
fn every_file_under_src_belongs_to_a_module() {
    let sources = rust_sources();
    let declares = |path: &str, name: &str| {
        sources
            .iter()
            .filter(|source| source.path == path)
            .any(|source| {
                source
                    .code()
                    .any(|(_, line)| line.trim_end().ends_with(&format!("mod {name};")))
            })
    };
    let mut found = Vec::new();
    for source in &sources {
        let Some((directory, name)) = module_of(&source.path) else {
            continue;
        };
        let parents = [
            format!("{directory}/mod.rs"),
            format!("{directory}.rs"),
            format!("{directory}/lib.rs"),
            format!("{directory}/main.rs"),
        ];
        if !parents.iter().any(|parent| declares(parent, name)) {
            let path = &source.path;
            found.push(format!(
                "{path}:1: no `mod {name};` names this file: add it or delete it"
            ));
        }
    }
    report(found);
}

#[test]
fn no_file_is_longer_than_one_noun() {
    report(rust_sources().iter().filter_map(|source| {
        let count = source.before_tests().count();
        (count > FILE_LINES_MAX).then(|| {
            format!(
                "{}:{FILE_LINES_MAX}: {count} lines before the tests: \
                 a second noun wants its own file",
                source.path
            )
        })
    }));
}

#[test]
fn no_line_is_wider_than_the_page() {
    let mut found = Vec::new();
    for source in sources() {
        if !source.has_extension(&["rs", "py", "sh", "md"]) {
            continue;
        }
        for (number, line) in source.lines() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX && !may_be_wide(line) {
                found.push(format!(
                    "{}:{number}: {columns} columns: break the line at {COLUMNS_MAX}",
                    source.path
                ));
            }
        }
    }
    report(found);
}

#[test]
fn version_and_toolchain_are_written_once() {
    let version = workspace_value("version");
    let toolchain = workspace_value("rust-version");
    let mut found = Vec::new();
    for source in sources() {
        let is_manifest = source.path.ends_with("Cargo.toml");
        let is_prose = source.has_extension(&["md", "sh", "yml"]) || source.path == ".ci/run";
        for (number, line) in source.lines() {
            let again = if is_manifest && source.path != "Cargo.toml" {
                line.starts_with("rust-version = ") || line == format!("version = \"{version}\"")
            } else {
                is_prose
                    && source.path != "CHANGELOG.md"
                    && (has_word(line, &version) || has_word(line, &toolchain))
            };
            if again {
                let path = &source.path;
                found.push(format!(
                    "{path}:{number}: {version} and {toolchain} stand in Cargo.toml alone: \
                     inherit it there, leave it out here"
                ));
            }
        }
    }
    report(found);
}

#[test]
fn the_gate_ends_with_the_test_command_of_the_readme() {
    let gate = fs::read_to_string(root().join(".ci/run")).unwrap();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let last = gate.lines().last().unwrap();
    assert!(
        readme.lines().any(|line| line == last),
        "README.md: give `{last}` as the command that passes all tests, as `.ci/run` does"
    );
}

#[test]
fn the_changelog_begins_with_this_version() {
    let changelog = fs::read_to_string(root().join("CHANGELOG.md"))
        .expect("CHANGELOG.md: write one, its newest entry is `## ` and the version");
    let newest = changelog.lines().find_map(|line| line.strip_prefix("## "));
    let version = workspace_value("version");
    assert!(
        newest.is_some_and(|entry| has_word(entry, &version)),
        "CHANGELOG.md: the newest entry is {newest:?}: begin one for {version}"
    );
}

/// Fails with all of `found`, one line each.
fn report(found: impl IntoIterator<Item = String>) {
    let found: Vec<_> = found.into_iter().collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// `words` in the code of Rust files that `is_bound` by the rule.
fn words_outside(words: &[&str], is_bound: impl Fn(&Source) -> bool, advice: &str) -> Vec<String> {
    let mut found = Vec::new();
    for source in rust_sources().iter().filter(|source| is_bound(source)) {
        for (number, code) in source.code() {
            let code = without_literals(code);
            if let Some(word) = words.iter().find(|word| has_word(&code, word)) {
                found.push(format!("{}:{number}: `{word}` {advice}", source.path));
            }
        }
    }
    found
}

/// Lines of any text file that contain one of `parts`.
fn lines_with(
    parts: &[&str],
    what: &str,
    is_bound: impl Fn(&Source) -> bool,
    advice: &str,
) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| is_bound(source)) {
        for (number, line) in source.lines() {
            if let Some(part) = parts.iter().find(|part| line.contains(**part)) {
                found.push(format!("{}:{number}: {part} {what}: {advice}", source.path));
            }
        }
    }
    found
}

/// Whether `text` contains `word` with nothing of an identifier or a number around it.
fn has_word(text: &str, word: &str) -> bool {
    let is_of_word = |character: char| character.is_alphanumeric() || character == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let behind = text[at + word.len()..].chars().next();
        !before.is_some_and(is_of_word) && !behind.is_some_and(is_of_word)
    })
}

/// A line of code without what stands between double quotes.
fn without_literals(code: &str) -> String {
    code.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

/// Tables, links, and literals, which are not worth breaking.
fn may_be_wide(line: &str) -> bool {
    let is_table = line.trim_start_matches(['/', '!', ' ']).starts_with('|');
    is_table || line.contains("://") || line.contains('"')
}

/// The directory and the name that a file's `mod` line would have; `None` for roots of crates.
fn module_of(path: &str) -> Option<(&str, &str)> {
    let is_source = path.starts_with("src/") || path.starts_with("loadgen/src/");
    let (directory, file) = path.rsplit_once('/')?;
    let is_root = matches!(file, "lib.rs" | "main.rs") || directory == "src/bin";
    if !is_source || is_root {
        return None;
    }
    match file {
        "mod.rs" => directory.rsplit_once('/'),
        _ => Some((directory, file.strip_suffix(".rs")?)),
    }
}

/// A value of `[workspace.package]`.
fn workspace_value(key: &str) -> String {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, section) = manifest.split_once("[workspace.package]").unwrap();
    let value = section
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "));
    value
        .expect("Cargo.toml: [workspace.package] has it")
        .trim_matches('"')
        .to_owned()
}

fn rust_sources() -> Vec<Source> {
    sources().into_iter().filter(Source::is_rust).collect()
}

/// Every text file of the repository that a person has written.
fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    collect(&root(), &mut sources);
    assert!(
        sources.iter().any(|source| source.path == "src/lib.rs"),
        "this reads the repository"
    );
    sources
}

fn collect(directory: &Path, sources: &mut Vec<Source>) {
    const NOT_WRITTEN: [&str; 6] = [
        ".git",
        "target",
        "artifacts",
        "corpus",
        "__pycache__",
        "Cargo.lock",
    ];
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    for path in paths {
        if NOT_WRITTEN
            .iter()
            .any(|name| path.file_name().is_some_and(|file| file == *name))
        {
            continue;
        }
        if path.is_dir() {
            collect(&path, sources);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let relative = path.strip_prefix(root()).unwrap();
            let path = relative.to_string_lossy().replace('\\', "/");
            sources.push(Source { path, text });
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
