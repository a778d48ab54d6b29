//! What `docs/speed.md` says of the memory that things take is held against the types.

const PAGE: &str = include_str!("../../docs/speed.md");

/// Fails unless the page has a row of each of these types with its size.
pub(crate) fn assert_told(sizes: &[(&str, usize)]) {
    let is_wrong = |(name, size): &&(&str, usize)| {
        let row = format!("| `{name}` | {size} | ");
        !PAGE.lines().any(|line| line.starts_with(&row))
    };
    let wrong: Vec<_> = sizes.iter().filter(is_wrong).collect();
    assert!(wrong.is_empty(), "docs/speed.md says other sizes than {wrong:?}");
}
