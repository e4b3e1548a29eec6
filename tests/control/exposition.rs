//! The text format of Prometheus, version 0.0.4, taken strictly: whatever it leaves open is refused
//! too, unless it is what the endpoint does.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(crate) struct Exposition {
    /// Kind and help by name.
    pub(crate) families: BTreeMap<String, (String, String)>,
    /// By name and labels, as they are written.
    samples: BTreeMap<(String, String), f64>,
}

impl Exposition {
    pub(crate) fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line ends");
        let mut page = Self::default();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let (name, help) = described(line, "HELP");
            let (again, kind) = described(lines.next().expect("a type"), "TYPE");
            assert_eq!(name, again, "HELP and TYPE of one metric stand together");
            assert!(!help.is_empty() && !help.contains('\\'), "{help}");
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            let before = page
                .families
                .insert(name.to_owned(), (kind.to_owned(), help.to_owned()));
            assert_eq!(before, None, "{name} is described once");
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                page.sample(name, line);
            }
        }
        page
    }

    fn sample(&mut self, family: &str, line: &str) {
        let (metric, number) = line.rsplit_once(' ').expect("a name and a number");
        let (name, labels) = match metric.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').expect("a brace")),
            None => (metric, ""),
        };
        assert_eq!(name, family, "a sample stands with its own metric");
        let mut names = BTreeSet::new();
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (name, value) = label.split_once('=').expect("a name and a value");
            assert!(is_name(name) && names.insert(name), "{line}");
            let value = value
                .strip_prefix('"')
                .and_then(|value| value.strip_suffix('"'));
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
            assert!(value.expect("quotes").bytes().all(is_plain), "{line}");
        }
        let number: f64 = number.parse().expect(line);
        assert!(number.is_finite() && number >= 0.0, "{line}");
        let key = (name.to_owned(), labels.to_owned());
        assert_eq!(self.samples.insert(key, number), None, "{line} comes once");
    }

    /// One sample; `labels` as they are written.
    #[track_caller]
    pub(crate) fn get(&self, name: &str, labels: &str) -> f64 {
        let key = (format!("hvlp_{name}"), labels.to_owned());
        let found = self.samples.get(&key);
        *found.unwrap_or_else(|| panic!("{name}{{{labels}}} is there"))
    }

    /// The sum over all labels.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let name = format!("hvlp_{name}");
        let of_name = self.samples.iter().filter(|((of, _), _)| *of == name);
        of_name.map(|(_, number)| number).sum()
    }
}

/// `# WORD name text`.
fn described<'a>(line: &'a str, word: &str) -> (&'a str, &'a str) {
    let rest = line.strip_prefix(&format!("# {word} ")).expect(line);
    let (name, text) = rest.split_once(' ').expect(line);
    assert!(is_name(name) && name.starts_with("hvlp_"), "{line}");
    (name, text)
}

fn is_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.starts_with(|first: char| first.is_ascii_lowercase()) && name.bytes().all(is_part)
}

#[test]
fn the_parser_takes_a_page_and_refuses_what_is_none() {
    let good = "# HELP hvlp_a_total What.\n# TYPE hvlp_a_total counter\nhvlp_a_total{x=\"y\"} 2\n";
    assert!((Exposition::parse(good).get("a_total", "x=\"y\"") - 2.0).abs() < f64::EPSILON);
    for (from, to) in [
        ("counter", "gauge"),
        ("# TYPE hvlp_a_total counter\n", ""),
        ("} 2\n", "} 2"),
        ("} 2", "} x"),
        ("} 2", "} -1"),
        ("\"y\"", "y"),
        ("hvlp_a_total{", "hvlp_b_total{"),
        ("# HELP hvlp_a_total", "# HELP a_total"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert!(
            std::panic::catch_unwind(|| Exposition::parse(&bad)).is_err(),
            "{bad}"
        );
    }
}
