//! A chart as SVG text: for each row a bar of the ratio to virtiofsd.
//!
//! The axis is logarithmic, so that twice and half as fast are equally long.
//! Colours follow the reader's light or dark scheme.

use std::fmt::{self, Write as _};

use crate::bench::row::{Level, Measure, Row};

const NAME_WIDTH: f64 = 210.0;
const SETTING_WIDTH: f64 = 125.0;
const FIGURE_WIDTH: f64 = 44.0;
/// Left of a panel.
const GUTTER: f64 = 18.0;
const MARGIN: f64 = 16.0;
/// Width of all panels together, their figures included.
const PANELS_WIDTH: f64 = 520.0;
const LINE: f64 = 18.0;
/// Between two names.
const GAP: f64 = 7.0;
const HEAD: f64 = 84.0;
/// Below the bars, beside the lines of the footer.
const FOOT: f64 = 16.0;
/// Letters of a line of the footer.
const FOOT_LETTERS: usize = 125;

const STYLE: &str = "\
text{font:12px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2328}
.title{font-size:16px;font-weight:600}.soft{fill:#59636e}.end{text-anchor:end}.middle{text-anchor:middle}
.grid{stroke:#d1d9e0}.one{stroke:#1f2328;stroke-width:1.5}.range{stroke:#1f2328;stroke-opacity:.6}
.better{fill:#4493f8}.worse{fill:#e5793b}
@media (prefers-color-scheme:dark){text{fill:#f0f6fc}.soft{fill:#9198a1}.grid{stroke:#3d444d}
.one{stroke:#f0f6fc}.range{stroke:#f0f6fc}.better{fill:#2f6fd0}.worse{fill:#c45a1c}}";

/// One column of bars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Panel {
    /// Operations, bytes or programs in a time.
    Speed,
    /// The daemon's processor time.
    Processor,
}

impl Panel {
    fn of(measure: Measure) -> Self {
        match measure {
            Measure::CpuMicrosecondsPerRequest => Self::Processor,
            _ => Self::Speed,
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Self::Speed => "speed",
            Self::Processor => "processor time a request",
        }
    }
}

/// What a bar shows.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bar {
    /// Of the medians.
    ratio: f64,
    /// Of the pair that was worst for vfsd, and of the best.
    pairs: (f64, f64),
}

impl Bar {
    fn of(row: &Row) -> Option<Self> {
        let mut pairs = (f64::INFINITY, 0.0_f64);
        for (ours, theirs) in row.vfsd.iter().zip(&row.virtiofsd) {
            let ratio = if row.measure.more_is_better() {
                ours / theirs
            } else {
                theirs / ours
            };
            pairs = (pairs.0.min(ratio), pairs.1.max(ratio));
        }
        let bar = Self {
            ratio: row.ratio()?,
            pairs,
        };
        [bar.ratio, pairs.0, pairs.1]
            .into_iter()
            .all(|ratio| ratio.is_finite() && ratio > 0.0)
            .then_some(bar)
    }
}

/// The bars of one name and setting.
struct Line<'a> {
    name: &'a str,
    setting: &'a str,
    bars: Vec<(Panel, Bar)>,
}

fn lines<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<Line<'a>> {
    let mut lines: Vec<Line<'a>> = Vec::new();
    for row in rows {
        let Some(bar) = Bar::of(row) else { continue };
        let bar = (Panel::of(row.measure), bar);
        let same = |line: &&mut Line<'_>| line.name == row.name && line.setting == row.setting;
        match lines.iter_mut().find(same) {
            Some(line) => line.bars.push(bar),
            None => lines.push(Line {
                name: &row.name,
                setting: &row.setting,
                bars: vec![bar],
            }),
        }
    }
    lines
}

/// Where ratios lie within a panel.
struct Axis {
    left: f64,
    width: f64,
    /// Powers of two.
    lowest: i32,
    highest: i32,
}

impl Axis {
    fn new(left: f64, width: f64, bars: impl Iterator<Item = Bar>) -> Self {
        let (mut lowest, mut highest) = (-1, 1);
        for bar in bars {
            lowest = lowest.min(power_of_two(bar.pairs.0.min(bar.ratio).log2().floor()));
            highest = highest.max(power_of_two(bar.pairs.1.max(bar.ratio).log2().ceil()));
        }
        Self {
            left,
            width,
            lowest,
            highest,
        }
    }

    fn x(&self, ratio: f64) -> f64 {
        let lowest = f64::from(self.lowest);
        let part = (ratio.log2() - lowest) / (f64::from(self.highest) - lowest);
        self.left + self.width * part.clamp(0.0, 1.0)
    }
}

/// Within what a chart can show; beyond it a bar is cut off.
#[expect(clippy::cast_possible_truncation, reason = "clamped")]
fn power_of_two(power: f64) -> i32 {
    power.clamp(-4.0, 5.0) as i32
}

/// The chart of the rows of `level` that have a peer; nothing when none has.
///
/// # Errors
/// Those of a formatter: writing to a text has none.
pub(crate) fn svg(
    rows: &[Row],
    level: Level,
    title: &str,
    footer: &str,
) -> Result<Option<String>, fmt::Error> {
    let lines = lines(rows.iter().filter(|row| row.level == level));
    let panels: Vec<Panel> = [Panel::Speed, Panel::Processor]
        .into_iter()
        .filter(|panel| {
            lines
                .iter()
                .any(|line| line.bars.iter().any(|bar| bar.0 == *panel))
        })
        .collect();
    if panels.is_empty() {
        return Ok(None);
    }
    let axes = axes(&panels, &lines);
    let names = lines.chunk_by(|one, two| one.name == two.name).count();
    let bottom = HEAD + LINE * count(lines.len()) + GAP * count(names);
    let footer = wrapped(footer);
    let height = bottom + FOOT + LINE * count(footer.len());
    let width = MARGIN * 2.0 + NAME_WIDTH + SETTING_WIDTH + PANELS_WIDTH;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"{title}\">\n\
         <style>{STYLE}</style>\n",
        title = escaped(title)
    );
    head(&mut text, title, rows, level)?;
    for (panel, axis) in &axes {
        grid(&mut text, *panel, axis, bottom)?;
    }
    let mut top = HEAD;
    for name in lines.chunk_by(|one, two| one.name == two.name) {
        top += GAP;
        for (index, line) in name.iter().enumerate() {
            if index == 0 {
                label(&mut text, MARGIN, top, "", line.name)?;
            }
            label(&mut text, MARGIN + NAME_WIDTH, top, "soft", line.setting)?;
            for (panel, bar) in &line.bars {
                if let Some((_, axis)) = axes.iter().find(|(of, _)| of == panel) {
                    draw(&mut text, axis, top, *bar)?;
                }
            }
            top += LINE;
        }
    }
    for (index, line) in footer.iter().enumerate() {
        label(
            &mut text,
            MARGIN,
            bottom + 8.0 + LINE * count(index),
            "soft",
            line,
        )?;
    }
    text.push_str("</svg>\n");
    Ok(Some(text))
}

fn axes(panels: &[Panel], lines: &[Line<'_>]) -> Vec<(Panel, Axis)> {
    let each = PANELS_WIDTH / count(panels.len());
    let mut left = MARGIN + NAME_WIDTH + SETTING_WIDTH;
    let mut axes = Vec::new();
    for panel in panels {
        let bars = lines
            .iter()
            .flat_map(|line| &line.bars)
            .filter(|(of, _)| of == panel)
            .map(|(_, bar)| *bar);
        let width = each - GUTTER - FIGURE_WIDTH;
        axes.push((*panel, Axis::new(left + GUTTER, width, bars)));
        left += each;
    }
    axes
}

fn head(text: &mut String, title: &str, rows: &[Row], level: Level) -> fmt::Result {
    let pairs = rows
        .iter()
        .filter(|row| row.level == level)
        .map(|row| row.vfsd.len().min(row.virtiofsd.len()))
        .filter(|pairs| *pairs > 0)
        .min()
        .unwrap_or(0);
    label(text, MARGIN, 12.0, "title", title)?;
    let explained = format!(
        "Bars to the right of 1: vfsd is better. Medians of {pairs} alternating {}; the thin line \
         goes from the worst pair to the best.",
        if pairs == 1 { "pair" } else { "pairs" }
    );
    label(text, MARGIN, 32.0, "soft", &explained)
}

fn grid(text: &mut String, panel: Panel, axis: &Axis, bottom: f64) -> fmt::Result {
    let middle = axis.left + axis.width / 2.0;
    label(text, middle, 50.0, "middle", panel.heading())?;
    for power in axis.lowest..=axis.highest {
        let ratio = 2.0_f64.powi(power);
        let x = axis.x(ratio);
        label(text, x, 66.0, "soft middle", &format!("{ratio}×"))?;
        let class = if power == 0 { "one" } else { "grid" };
        writeln!(
            text,
            "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{HEAD}\" y2=\"{bottom}\"/>"
        )?;
    }
    Ok(())
}

fn draw(text: &mut String, axis: &Axis, top: f64, bar: Bar) -> fmt::Result {
    let (one, end) = (axis.x(1.0), axis.x(bar.ratio));
    let class = if bar.ratio < 1.0 { "worse" } else { "better" };
    writeln!(
        text,
        "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
        one.min(end),
        top + 3.0,
        (one - end).abs(),
        LINE - 6.0
    )?;
    let middle = top + LINE / 2.0;
    writeln!(
        text,
        "<line class=\"range\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\"/>",
        axis.x(bar.pairs.0),
        axis.x(bar.pairs.1)
    )?;
    let right = axis.left + axis.width + FIGURE_WIDTH - 6.0;
    label(text, right, top, "end", &format!("{:.2}", bar.ratio))
}

fn label(text: &mut String, x: f64, top: f64, class: &str, words: &str) -> fmt::Result {
    let baseline = top + 13.0;
    writeln!(
        text,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{baseline:.1}\">{}</text>",
        escaped(words)
    )
}

/// In lines that fit below the chart.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + word.len() < FOOT_LETTERS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// A number of lines as a factor of lengths.
#[expect(clippy::cast_precision_loss, reason = "charts have few lines")]
fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, measure: Measure, vfsd: &[f64], virtiofsd: &[f64]) -> Row {
        Row {
            vfsd: vfsd.to_vec(),
            virtiofsd: virtiofsd.to_vec(),
            ..Row::new(Level::Guest, name, "cold", measure)
        }
    }

    fn drawn(rows: &[Row]) -> String {
        svg(rows, Level::Guest, "Title", "foot").unwrap().unwrap()
    }

    fn attribute(element: &str, name: &str) -> f64 {
        let (_, rest) = element.split_once(&format!(" {name}=\"")).unwrap();
        rest.split_once('"').unwrap().0.parse().unwrap()
    }

    fn elements<'a>(text: &'a str, begin: &str) -> Vec<&'a str> {
        text.lines()
            .filter(|line| line.starts_with(begin))
            .collect()
    }

    #[test]
    fn twice_and_half_as_fast_are_equally_long_on_either_side_of_one() {
        let text = drawn(&[
            row("faster", Measure::Seconds, &[1.0], &[2.0]),
            row("slower", Measure::OperationsPerSecond, &[1.0], &[2.0]),
        ]);
        let bars = elements(&text, "<rect");
        let one = attribute(elements(&text, "<line class=\"one\"")[0], "x1");
        assert!(bars[0].contains("\"better\"") && bars[1].contains("\"worse\""));
        assert_eq!(attribute(bars[0], "x"), one);
        assert_eq!(attribute(bars[0], "width"), attribute(bars[1], "width"));
        assert!((attribute(bars[1], "x") + attribute(bars[1], "width") - one).abs() < 0.11);
    }

    #[test]
    fn the_thin_line_goes_from_the_worst_pair_to_the_best() {
        let bar = Bar::of(&row(
            "a",
            Measure::Seconds,
            &[1.0, 2.0, 4.0],
            &[8.0, 8.0, 8.0],
        ))
        .unwrap();
        assert_eq!((bar.ratio, bar.pairs), (4.0, (2.0, 8.0)));
    }

    #[test]
    fn a_row_without_peer_or_of_another_level_has_no_bar() {
        let alone = row("alone", Measure::Seconds, &[1.0], &[]);
        assert_eq!(
            svg(std::slice::from_ref(&alone), Level::Guest, "", "").unwrap(),
            None
        );
        let other = row("other", Measure::Seconds, &[1.0], &[1.0]);
        assert_eq!(
            svg(std::slice::from_ref(&other), Level::Native, "", "").unwrap(),
            None
        );
        assert!(!drawn(&[alone, other]).contains("alone"));
    }

    #[test]
    fn speed_and_processor_time_of_a_row_share_a_line() {
        let text = drawn(&[
            row("a & b", Measure::OperationsPerSecond, &[2.0], &[1.0]),
            row("a & b", Measure::CpuMicrosecondsPerRequest, &[1.0], &[3.0]),
        ]);
        let bars = elements(&text, "<rect");
        assert_eq!(bars.len(), 2);
        assert_eq!(attribute(bars[0], "y"), attribute(bars[1], "y"));
        assert_eq!(text.matches("a &amp; b").count(), 1);
    }

    #[test]
    fn a_long_footer_is_wrapped_and_loses_nothing() {
        let text = "word ".repeat(60) + "end";
        let lines = wrapped(&text);
        assert_eq!(lines.join(" "), text);
        assert!(lines.len() == 3 && lines.iter().all(|line| line.len() <= FOOT_LETTERS));
    }

    #[test]
    fn a_bar_stays_within_its_panel_whatever_the_ratio() {
        let text = drawn(&[row("far", Measure::Seconds, &[1.0], &[1e6])]);
        let bar = elements(&text, "<rect")[0];
        let end = attribute(bar, "x") + attribute(bar, "width");
        let figure = MARGIN + NAME_WIDTH + SETTING_WIDTH + PANELS_WIDTH - FIGURE_WIDTH;
        assert!(end <= figure + 0.1, "{end}");
    }
}
