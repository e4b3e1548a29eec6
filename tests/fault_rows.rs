//! Every row of the catalogue of faults, `FAULTS-COVERAGE.md`, has a test that carries its id, or a
//! line that says why not.
#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, which is what it is for"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_row_has_a_test_or_a_written_reason_and_every_id_is_a_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tested = BTreeSet::new();
    for folder in ["tests", "src", "loadgen"] {
        visit(&root.join(folder), &mut |source| {
            tested.extend(rows_of_tests(source));
        });
    }
    let catalogue = fs::read_to_string(root.join("tests/FAULTS-COVERAGE.md")).unwrap();
    let (rows, excused) = (rows_of_tables(&catalogue), excused_rows(&catalogue));
    assert!(rows.len() > 40, "the catalogue has lost rows: {rows:?}");

    let missing: Vec<_> = rows.difference(&tested).collect();
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
    let stale: Vec<_> = excused.intersection(&tested).collect();
    assert!(
        stale.is_empty(),
        "these have a test by now: {stale:?}; remove their lines"
    );
    let unknown: Vec<_> = tested.union(&excused).collect();
    let unknown: Vec<_> = unknown.iter().filter(|row| !rows.contains(**row)).collect();
    assert!(
        unknown.is_empty(),
        "ids that are no row: {unknown:?}; add them to tests/FAULTS-COVERAGE.md"
    );
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

/// The first cells of the tables.
fn rows_of_tables(catalogue: &str) -> BTreeSet<String> {
    let first_cell = |line: &str| {
        let (cell, _) = line.strip_prefix("| ")?.split_once(" |")?;
        row(&cell.to_lowercase()).map(String::from)
    };
    catalogue.lines().filter_map(first_cell).collect()
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
fn ids_are_read_off_the_names_of_tests_and_the_first_cells_of_tables() {
    let source = "#[test]\nfn a1_a3_claim_b2() {}\nfn c1_helper() {}\n#[test]\nfn the_c2() {}";
    assert_eq!(rows_of_tests(source), ["a1", "a3"].map(String::from).into());
    let catalogue = "# Title\n| row | what |\n|---|---|\n| A12 | B7 |\n\n\
                     - d7: the kernel cannot be made to do that here.\n- no row\n";
    assert_eq!(excused_rows(catalogue), ["d7".to_owned()].into());
    assert_eq!(rows_of_tables(catalogue), ["a12".to_owned()].into());
}
