//! The results for people who did not run them: a table and a drawn chart in `docs/`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::results::Row;

/// Between these the table stands in `benchmarks.md`.
const BEGIN: &str = "<!-- results -->\n";
const END: &str = "<!-- end of results -->\n";
/// The chart, as the page shows it.
const IMAGE: &str = "![Time until done](benchmarks.svg)\n";

/// What each scenario is called in the chart.
const SCENARIOS: [(&str, &str); 10] = [
    ("A", "A: 1,000,000 prefixes in and out"),
    ("B", "B: the table to one more peer"),
    ("C", "C: the table's end"),
    ("D", "D: ten peers, the same 100,000 prefixes"),
    ("E", "E: reflection among 100 clients"),
    ("F", "F: 100,000 routes into the kernel"),
    ("G", "G: and out of it"),
    ("H", "H: 100,000 routes around a dead next hop"),
    ("cni-add", "a pod's ADD"),
    ("cni-del", "a pod's DEL"),
];
const COLOURS: [(&str, &str); 5] = [
    ("weft", "#0f766e"),
    ("bird", "#b45309"),
    ("frr", "#6d28d9"),
    ("gobgp", "#be185d"),
    ("floor", "#94a3b8"),
];

/// Pixels.
const WIDTH: f64 = 820.0;
const LEFT: f64 = 300.0;
const RIGHT: f64 = 80.0;
const BAR: f64 = 16.0;
const GAP: f64 = 14.0;
const TOP: f64 = 70.0;
/// The scale: powers of ten of a second.
const DECADES: std::ops::RangeInclusive<i32> = -4..=2;

/// Writes `benchmarks.svg` to a folder, and the table and the chart into its `benchmarks.md`.
///
/// # Errors
/// If the folder cannot be written, or its `benchmarks.md` has no place for the table.
pub fn write(rows: &[Row], folder: &Path) -> Result<()> {
    let (page, chart) = (folder.join("benchmarks.md"), folder.join("benchmarks.svg"));
    put(&page, [BEGIN, END], &format!("{IMAGE}\n{}", table(rows)))?;
    fs::write(&chart, svg(rows)).with_context(|| format!("cannot write {}", chart.display()))
}

/// Puts a text into a page, in the place of what stands between two marks.
pub(super) fn put(page: &Path, [begin, end]: [&str; 2], new: &str) -> Result<()> {
    let text = fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    let place = || {
        let (before, rest) = text.split_once(begin)?;
        let (_, after) = rest.split_once(end)?;
        Some((before, after))
    };
    let (before, after) =
        place().with_context(|| format!("{} has no place for the table", page.display()))?;
    let text = format!("{before}{begin}\n{new}{end}{after}");
    fs::write(page, text).with_context(|| format!("cannot write {}", page.display()))
}

/// The rows of each scenario that was measured.
fn scenarios(rows: &[Row]) -> impl Iterator<Item = (&'static str, Vec<&Row>)> {
    let of = |name: &str| rows.iter().filter(|row| row.scenario == name).collect::<Vec<_>>();
    let all = SCENARIOS.iter().map(move |(name, words)| (*words, of(name)));
    all.filter(|(_, rows)| !rows.is_empty())
}

fn seconds(row: &Row) -> String {
    match row.wall_seconds {
        _ if row.timed_out => "more than 60 s".to_owned(),
        wall if wall < 0.1 => format!("{:.2} ms", wall * 1e3),
        wall => format!("{wall:.2} s"),
    }
}

fn table(rows: &[Row]) -> String {
    let mut text =
        "| scenario | daemon | wall | CPU s | peak MB | Weft's wall is |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for (words, rows) in scenarios(rows) {
        let weft = rows.iter().find(|row| row.daemon == "weft" && !row.timed_out);
        for row in &rows {
            let number =
                |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"));
            let ratio = weft.filter(|weft| weft.daemon != row.daemon && !row.timed_out);
            let ratio = ratio
                .map_or_else(String::new, |weft| format!("{:.2} x", weft.wall_seconds / row.wall_seconds));
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "| {words} | {} {} | {} | {} | {} | {ratio} |",
                row.daemon,
                row.version,
                seconds(row),
                number(row.cpu_seconds),
                number(row.peak_mb),
            );
        }
    }
    text
}

/// Where a time is on the logarithmic scale, from 0 to 1.
fn place(seconds: f64) -> f64 {
    let (first, last) = (f64::from(*DECADES.start()), f64::from(*DECADES.end()));
    ((seconds.max(f64::MIN_POSITIVE).log10() - first) / (last - first)).clamp(0.0, 1.0)
}

fn svg(rows: &[Row]) -> String {
    let mut body = String::new();
    let mut y = TOP;
    for (words, rows) in scenarios(rows) {
        let height = rows.len() as f64 * BAR;
        let middle = y + height / 2.0 + 4.0;
        let _ = writeln!(body, r#"<text x="{}" y="{middle}" text-anchor="end">{words}</text>"#, LEFT - 10.0);
        for row in rows {
            let colour =
                COLOURS.iter().find(|(name, _)| *name == row.daemon).map_or("#000", |(_, colour)| colour);
            let width = place(row.wall_seconds) * (WIDTH - LEFT - RIGHT);
            let _ = writeln!(
                body,
                r#"<rect x="{LEFT}" y="{y}" width="{width:.1}" height="{}" fill="{colour}"/><text x="{:.1}" y="{}" class="value">{}</text>"#,
                BAR - 2.0,
                LEFT + width + 4.0,
                y + BAR - 4.0,
                seconds(row),
            );
            y += BAR;
        }
        y += GAP;
    }
    let mut head = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}" font-family="sans-serif" font-size="12">
<style>.value {{ font-size: 10px }} .grid {{ stroke: #e2e8f0 }}</style>
<rect width="100%" height="100%" fill="#fff"/>
<text x="10" y="20" font-size="15" font-weight="bold">Time until done, on a logarithmic scale: shorter is better</text>
"##
    );
    for (index, (name, colour)) in
        COLOURS.iter().filter(|(name, _)| rows.iter().any(|r| r.daemon == *name)).enumerate()
    {
        let x = LEFT + index as f64 * 80.0;
        let _ = writeln!(
            head,
            r#"<rect x="{x}" y="32" width="12" height="12" fill="{colour}"/><text x="{}" y="42">{name}</text>"#,
            x + 16.0
        );
    }
    for decade in DECADES {
        let x = LEFT + place(10_f64.powi(decade)) * (WIDTH - LEFT - RIGHT);
        let label = match decade {
            0.. => format!("{} s", 10_i32.pow(decade.unsigned_abs())),
            _ => format!("{} ms", 10_f64.powi(decade + 3)),
        };
        let _ = writeln!(
            head,
            r#"<line class="grid" x1="{x:.1}" x2="{x:.1}" y1="{}" y2="{y}"/><text x="{x:.1}" y="{}" text-anchor="middle" class="value">{label}</text>"#,
            TOP - 6.0,
            TOP - 10.0
        );
    }
    format!("{head}{body}</svg>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let row = |scenario: &str, daemon: &str, wall: f64| Row {
            scenario: scenario.into(),
            daemon: daemon.into(),
            version: "1".into(),
            wall_seconds: wall,
            cpu_seconds: Some(1.5),
            peak_mb: None,
            runs: 3,
            timed_out: wall >= 60.0,
        };
        vec![row("A", "weft", 0.5), row("A", "bird", 2.0), row("A", "gobgp", 60.0), row("H", "weft", 0.0012)]
    }

    #[test]
    fn the_table_has_ratios_and_says_what_took_too_long() {
        let table = table(&rows());
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(lines.len(), 4, "{table}");
        assert!(lines[1].ends_with("| bird 1 | 2.00 s | 1.50 | – | 0.25 x |"), "{table}");
        assert!(lines[2].contains("more than 60 s") && lines[3].contains("1.20 ms"), "{table}");
    }

    #[test]
    fn the_chart_is_well_formed_and_has_a_bar_a_row() {
        let chart = svg(&rows());
        assert_eq!(chart.matches("<rect x=\"300\"").count(), 4 + 1, "{chart}");
        for element in ["svg", "text", "style"] {
            let (open, close) = (
                chart.matches(&format!("<{element}")).count(),
                chart.matches(&format!("</{element}>")).count(),
            );
            assert_eq!(open, close, "{element}: {chart}");
        }
        assert!((place(0.001) - 1.0 / 6.0).abs() < 1e-9 && place(0.0) == 0.0 && place(1e9) == 1.0);
    }

    #[test]
    fn the_page_keeps_what_people_wrote() {
        let folder = std::env::temp_dir().join(format!("weft-chart-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("benchmarks.md"), format!("before\n{BEGIN}old\n{END}after\n")).unwrap();
        write(&rows(), &folder).unwrap();
        let page = fs::read_to_string(folder.join("benchmarks.md")).unwrap();
        assert!(page.starts_with("before\n") && page.ends_with("after\n") && !page.contains("old"), "{page}");
        fs::write(folder.join("benchmarks.md"), "nothing").unwrap();
        assert!(write(&rows(), &folder).is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
