//! Plots as SVG, dark on white, so that they can be read on any page.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Told apart by those who see colours differently, too.
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 90, 160),
    RGBColor(225, 150, 0),
    RGBColor(0, 140, 100),
    RGBColor(190, 90, 150),
    RGBColor(200, 75, 0),
    RGBColor(90, 90, 90),
];
const FONT: &str = "sans-serif";
const TITLE_SIZE: i32 = 20;
const TEXT_SIZE: i32 = 16;
/// Around everything.
const MARGIN: i32 = 16;
const WIDTH: i32 = 800;

/// A bar for each kind beside each other, in one unit.
pub(crate) struct Bars<'a> {
    pub(crate) title: &'a str,
    /// What stands behind each value.
    pub(crate) unit: &'a str,
    /// What is told of each thing, for the legend.
    pub(crate) kinds: &'a [&'a str],
    /// Each thing, and a value for each of the kinds.
    pub(crate) rows: &'a [(String, Vec<f64>)],
}

/// Lines over a common ground.
pub(crate) struct Lines<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: Axis<'a>,
    pub(crate) y: Axis<'a>,
    /// Each line's name and points.
    pub(crate) series: &'a [(String, Vec<(f64, f64)>)],
}

#[derive(Clone, Copy)]
pub(crate) struct Axis<'a> {
    /// With the unit.
    pub(crate) name: &'a str,
    /// Each step is a multiplication; otherwise the axis is linear and begins at 0.
    pub(crate) is_logarithmic: bool,
}

/// Where values are on an axis: between its first tick and its last.
struct Scale {
    is_logarithmic: bool,
    ticks: Vec<f64>,
}

/// Writes `NAME.svg`, and tells where that is.
pub(crate) fn bars(name: &str, plot: &Bars<'_>) -> Result<PathBuf> {
    const THICKNESS: i32 = 16;
    const GAP: i32 = 14;
    const VALUES: i32 = 100;
    let longest = plot.rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    // As wide as most characters are half as high as the text.
    let left = MARGIN + i32::try_from(longest)? * TEXT_SIZE / 2;
    let greatest = plot.rows.iter().flat_map(|(_, values)| values).copied().fold(0.0, f64::max);
    ensure!(greatest > 0.0, "nothing to plot");
    let kinds = i32::try_from(plot.kinds.len())?;
    let rows = i32::try_from(plot.rows.len())?;
    let head = MARGIN + TITLE_SIZE + GAP + if kinds > 1 { TEXT_SIZE + GAP } else { 0 };
    let height = head + rows * (kinds * THICKNESS + GAP) + MARGIN;
    let path = place(name)?;
    let area = SVGBackend::new(&path, size(height)?).into_drawing_area();
    area.fill(&WHITE)?;
    let text = |text: &str, at: (i32, i32), horizontal: HPos, size: i32| {
        let style = (FONT, size).into_font().color(&BLACK).pos(Pos::new(horizontal, VPos::Center));
        area.draw_text(text, &style, at)
    };
    text(plot.title, (MARGIN, MARGIN + TITLE_SIZE / 2), HPos::Left, TITLE_SIZE)?;
    if kinds > 1 {
        let middle = head - GAP - TEXT_SIZE / 2;
        for ((kind, color), left) in plot.kinds.iter().zip(COLORS).zip((left..).step_by(160)) {
            let corners = [(left, middle - TEXT_SIZE / 2), (left + TEXT_SIZE, middle + TEXT_SIZE / 2)];
            area.draw(&Rectangle::new(corners, color.filled()))?;
            text(kind, (left + TEXT_SIZE + 6, middle), HPos::Left, TEXT_SIZE)?;
        }
    }
    for ((name, values), top) in plot.rows.iter().zip((head..).step_by((kinds * THICKNESS + GAP) as usize)) {
        text(name, (left - 8, top + kinds * THICKNESS / 2), HPos::Right, TEXT_SIZE)?;
        for ((value, color), top) in values.iter().zip(COLORS).zip((top..).step_by(THICKNESS as usize)) {
            let end = left + (f64::from(WIDTH - left - VALUES) * value / greatest).round() as i32;
            let corners = [(left, top + 1), (end, top + THICKNESS - 1)];
            area.draw(&Rectangle::new(corners, color.filled()))?;
            let value = format!("{} {}", number(*value), plot.unit);
            text(value.trim_end(), (end + 6, top + THICKNESS / 2), HPos::Left, TEXT_SIZE)?;
        }
    }
    area.present()?;
    drop(area);
    Ok(path)
}

/// Writes `NAME.svg`, and tells where that is.
pub(crate) fn lines(name: &str, plot: &Lines<'_>) -> Result<PathBuf> {
    let points = || plot.series.iter().flat_map(|(_, points)| points);
    let x = Scale::over(points().map(|(x, _)| *x), plot.x.is_logarithmic)?;
    let y = Scale::over(points().map(|(_, y)| *y), plot.y.is_logarithmic)?;
    let path = place(name)?;
    let area = SVGBackend::new(&path, size(450)?).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(plot.title, (FONT, TITLE_SIZE))
        .margin(MARGIN)
        // Half of the last label is behind the end of the axis.
        .margin_right(2 * MARGIN)
        .x_label_area_size(3 * TEXT_SIZE)
        .y_label_area_size(5 * TEXT_SIZE)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .axis_style(BLACK)
        .label_style((FONT, TEXT_SIZE))
        .axis_desc_style((FONT, TEXT_SIZE))
        .x_desc(plot.x.name)
        .y_desc(plot.y.name)
        .draw()?;
    for ((name, points), color) in plot.series.iter().zip(COLORS.iter().cycle()) {
        let line = LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(3);
        chart.draw_series(line)?.label(name).legend(move |(left, middle)| {
            PathElement::new([(left, middle), (left + 16, middle)], color.stroke_width(2))
        });
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font((FONT, TEXT_SIZE))
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    drop(chart);
    drop(area);
    Ok(path)
}

impl Scale {
    /// One that holds all the values.
    fn over(values: impl Iterator<Item = f64> + Clone, is_logarithmic: bool) -> Result<Self> {
        let (least, most) = (values.clone().fold(f64::MAX, f64::min), values.fold(0.0, f64::max));
        ensure!(most > 0.0 && (least > 0.0 || !is_logarithmic), "values that no such axis can show");
        let ticks = if is_logarithmic { multiples(least, most) } else { steps(most) };
        Ok(Self { is_logarithmic, ticks })
    }
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (first, last): (i32, i32)) -> i32 {
        let measure = |value: f64| if self.is_logarithmic { value.log10() } else { value };
        let Range { start, end } = self.range();
        let part = (measure(*value) - measure(start)) / (measure(end) - measure(start));
        first + (f64::from(last - first) * part).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.ticks[0]..self.ticks[self.ticks.len() - 1]
    }
}

impl ValueFormatter<f64> for Scale {
    fn format(value: &f64) -> String {
        number(*value)
    }
}

/// Powers of ten around both values; where these are few, twice and five times such a power, too.
fn multiples(least: f64, most: f64) -> Vec<f64> {
    let exponents = least.log10().floor() as i32..=most.log10().ceil() as i32;
    let factors: &[f64] = if exponents.clone().count() > 4 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let all = exponents.flat_map(|exponent| factors.iter().map(move |factor| factor * 10_f64.powi(exponent)));
    let all: Vec<_> = all.collect();
    let first = all.iter().rposition(|tick| *tick <= least).unwrap_or_default();
    let last = all.iter().position(|tick| *tick >= most && *tick > all[first]).unwrap_or(all.len() - 1);
    all[first..=last].to_vec()
}

/// Round steps from 0 to what is not below the greatest value.
fn steps(most: f64) -> Vec<f64> {
    let power = 10_f64.powf((most / 5.0).log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power * 6.0 >= most);
    let step = factor.unwrap_or(10.0) * power;
    (0..=(most / step).ceil() as u32).map(|count| f64::from(count) * step).collect()
}

/// Three digits that count, and a comma after the thousands.
pub(crate) fn number(value: f64) -> String {
    if value >= 999.5 {
        let digits = format!("{value:.0}");
        let parts: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
        return parts.join(",");
    }
    let decimals = if value > 0.0 { (2 - value.log10().floor() as i32).max(0) as usize } else { 0 };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn place(name: &str) -> Result<PathBuf> {
    let folder = std::env::var_os("SHARDLESS_PLOTS").unwrap_or_else(|| "target/plots".into());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    fs::create_dir_all(&folder)?;
    Ok(folder.join(name).with_extension("svg"))
}

fn size(height: i32) -> Result<(u32, u32)> {
    Ok((u32::try_from(WIDTH)?, u32::try_from(height).context("a plot without height")?))
}
