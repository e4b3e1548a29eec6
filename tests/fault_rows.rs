//! Every row of the catalogue of faults that is due has a test that carries its id, or a line in
//! `FAULTS-COVERAGE.md` that says why not.
#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Rows that are due: section, numbers.
const DUE: [(char, &[u32]); 5] = [
    (
        'a',
        &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18],
    ),
    ('b', &[1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ('c', &[1, 2, 10, 11]),
    ('d', &[5, 6, 11, 12, 13, 14]),
    ('g', &[1, 2, 3, 7]),
];

#[test]
fn every_row_that_is_due_has_a_test_or_a_written_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tested = BTreeSet::new();
    for folder in ["tests", "src"] {
        visit(&root.join(folder), &mut |source| {
            tested.extend(rows_of_tests(source));
        });
    }
    let coverage = fs::read_to_string(root.join("tests/FAULTS-COVERAGE.md")).unwrap();
    let excused = excused_rows(&coverage);
    let due = DUE.iter().flat_map(|(section, numbers)| {
        numbers
            .iter()
            .map(move |number| format!("{section}{number}"))
    });
    let due: BTreeSet<_> = due.collect();

    let missing: Vec<_> = due.iter().filter(|row| !tested.contains(*row)).collect();
    let missing: Vec<_> = missing
        .iter()
        .filter(|row| !excused.contains(**row))
        .collect();
    assert!(
        missing.is_empty(),
        "rows without a test: {missing:?}; name a test fn {}_..., or add `- {0}: reason` to \
         tests/FAULTS-COVERAGE.md",
        missing[0]
    );
    let stale: Vec<_> = excused.iter().filter(|row| tested.contains(*row)).collect();
    assert!(
        stale.is_empty(),
        "these have a test by now: {stale:?}; remove their lines"
    );
    let unknown: Vec<_> = excused.difference(&due).collect();
    assert!(unknown.is_empty(), "not due yet: {unknown:?}");
}

fn visit(folder: &Path, take: &mut impl FnMut(&str)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, take);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            take(&fs::read_to_string(&path).unwrap());
        }
    }
}

/// The ids in front of the names of test functions: `a1_a3_claim` covers two rows.
fn rows_of_tests(source: &str) -> BTreeSet<String> {
    let mut rows = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("fn ") {
            if is_test {
                rows.extend(name.split('_').map_while(row).map(String::from));
            }
            is_test = false;
        }
        is_test |= line == "#[test]";
    }
    rows
}

/// The lines `- a1: reason`; a reason is a sentence.
fn excused_rows(coverage: &str) -> BTreeSet<String> {
    let line = |line: &str| {
        let (id, reason) = line.strip_prefix("- ")?.split_once(": ")?;
        assert!(
            reason.ends_with('.') && reason.len() > 20,
            "{id} needs a reason"
        );
        row(id).map(String::from)
    };
    coverage.lines().filter_map(line).collect()
}

fn row(part: &str) -> Option<&str> {
    let number = part.strip_prefix(|section: char| section.is_ascii_lowercase())?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(part)
}

#[test]
fn ids_are_read_off_the_names_of_tests_alone() {
    let source = "#[test]\nfn a1_a3_claim_b2() {}\nfn c1_helper() {}\n#[test]\nfn the_c2() {}";
    assert_eq!(rows_of_tests(source), ["a1", "a3"].map(String::from).into());
    let coverage = "# Title\n- d7: the kernel cannot be made to do that here.\n- no row\n";
    assert_eq!(excused_rows(coverage), ["d7".to_owned()].into());
}
