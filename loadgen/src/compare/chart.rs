//! The charts of the page, each a piece of SVG: no script, nothing to load.

use anyhow::Result;
use hdrhistogram::Histogram;
use plotters::coord::Shift;
use plotters::coord::combinators::LogCoord;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{
    BLACK, Cartesian2d, ChartBuilder, ChartContext, Color, DrawingArea, IntoDrawingArea,
    IntoLogRange, LineSeries, RGBColor, Rectangle, SVGBackend, Text, WHITE,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{IntoFont, TextStyle};

const SIZE: (u32, u32) = (1080, 400);
const FONT: &str = "sans-serif";
/// Space between two groups of bars, in bars.
const GAP: f64 = 1.2;
/// Points of a percentile curve for each halving of the distance to 100 %.
const TICKS_PER_HALF_DISTANCE: u32 = 8;

/// Bars that belong together: a workload, and one value per target with its label.
pub struct Group {
    /// Below the bars.
    pub name: String,
    /// Which target's colour, how high, and what is written above.
    pub bars: Vec<(usize, f64, String)>,
}

/// One target's latencies.
pub struct Curve<'a> {
    /// Which target's colour.
    pub target: usize,
    /// Nanoseconds.
    pub latency: &'a Histogram<u64>,
}

/// The colour of a target by its number.
pub const fn colour(target: usize) -> RGBColor {
    const COLOURS: [RGBColor; 8] = [
        RGBColor(0x1d, 0x5f, 0xc4),
        RGBColor(0x2b, 0x9a, 0x66),
        RGBColor(0xd6, 0x45, 0x3d),
        RGBColor(0x8e, 0x57, 0xb8),
        RGBColor(0x8b, 0x92, 0x9c),
        RGBColor(0xd9, 0x8b, 0x1f),
        RGBColor(0x17, 0x9f, 0xb0),
        RGBColor(0xb8, 0x5c, 0x8a),
    ];
    COLOURS[target % COLOURS.len()]
}

type Logarithmic = LogCoord<f64>;
type BarChart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, Logarithmic>>;

/// Groups of bars over a logarithmic axis; `unit` is written beside it.
///
/// # Errors
/// The drawing failed.
pub fn bars(groups: &[Group], unit: &str) -> Result<String> {
    let values = || {
        groups
            .iter()
            .flat_map(|group| &group.bars)
            .map(|&(_, value, _)| value)
    };
    let lowest = 10_f64.powf(values().fold(f64::MAX, f64::min).log10().floor());
    let highest = values().fold(f64::MIN_POSITIVE, f64::max) * 1.6;
    let width = groups
        .iter()
        .map(|group| group.bars.len() as f64 + GAP)
        .sum::<f64>();

    let mut svg = String::new();
    {
        let area = canvas(&mut svg)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(34)
            .y_label_area_size(84)
            .build_cartesian_2d(0.0..width, (lowest..highest).log_scale())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_desc(unit)
            .y_label_formatter(&|value| short(*value))
            .label_style((FONT, 13))
            .axis_desc_style((FONT, 14))
            .light_line_style(BLACK.mix(0.05))
            .bold_line_style(BLACK.mix(0.15))
            .draw()?;
        let mut left = GAP / 2.0;
        for group in groups {
            draw_group(&area, &mut chart, group, left, lowest)?;
            left += group.bars.len() as f64 + GAP;
        }
        area.present()?;
    }
    Ok(svg)
}

fn draw_group(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    chart: &mut BarChart<'_, '_>,
    group: &Group,
    left: f64,
    lowest: f64,
) -> Result<()> {
    let mut at = left;
    for (target, value, label) in &group.bars {
        let corners = [(at + 0.06, lowest), (at + 0.94, *value)];
        let bar = Rectangle::new(corners, colour(*target).filled());
        chart.draw_series([bar])?;
        let top = chart.backend_coord(&(at + 0.5, *value));
        let text = Text::new(
            label.clone(),
            (top.0, top.1 - 3),
            label_style(11, VPos::Bottom),
        );
        area.draw(&text)?;
        at += 1.0;
    }
    let middle = chart.backend_coord(&(f64::midpoint(left, at), lowest));
    let below = (middle.0, middle.1 + 10);
    area.draw(&Text::new(
        group.name.clone(),
        below,
        label_style(15, VPos::Top),
    ))?;
    Ok(())
}

/// Latency over the distance to 100 %, both logarithmic.
///
/// # Errors
/// The drawing failed.
pub fn percentiles(curves: &[Curve<'_>]) -> Result<String> {
    let lines: Vec<_> = curves
        .iter()
        .map(|curve| (curve.target, points(curve.latency)))
        .collect();
    let all = || lines.iter().flat_map(|(_, points)| points);
    let last = all().map(|&(distance, _)| distance).fold(10.0, f64::max);
    let lowest = all().map(|&(_, value)| value).fold(f64::MAX, f64::min) * 0.8;
    let highest = all().map(|&(_, value)| value).fold(lowest, f64::max) * 1.3;

    let mut svg = String::new();
    {
        let area = canvas(&mut svg)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .margin_right(40)
            .x_label_area_size(48)
            .y_label_area_size(84)
            .build_cartesian_2d((1.0..last).log_scale(), (lowest..highest).log_scale())?;
        chart
            .configure_mesh()
            .x_desc("percentile")
            .y_desc("µs from the intended send time")
            .x_label_formatter(&|distance| percentile(*distance))
            .y_label_formatter(&|value| short(*value))
            .label_style((FONT, 13))
            .axis_desc_style((FONT, 14))
            .light_line_style(BLACK.mix(0.05))
            .bold_line_style(BLACK.mix(0.15))
            .draw()?;
        for (target, points) in lines {
            let style = colour(target).stroke_width(2);
            chart.draw_series(LineSeries::new(points, style))?;
        }
        area.present()?;
    }
    Ok(svg)
}

/// 1 / (1 - quantile), and microseconds; up to the last single delivery.
fn points(latency: &Histogram<u64>) -> Vec<(f64, f64)> {
    let end = latency.len().max(2) as f64;
    let steps = latency.iter_quantiles(TICKS_PER_HALF_DISTANCE);
    let distance = |quantile: f64| (1.0 / (1.0 - quantile).max(f64::MIN_POSITIVE)).min(end);
    steps
        .map(|step| {
            let value = step.value_iterated_to() as f64 / 1e3;
            (distance(step.quantile_iterated_to()), value)
        })
        .collect()
}

/// `99.9 %` for 1000.
fn percentile(distance: f64) -> String {
    let nines = distance.log10().round().max(0.0);
    let percent = 100.0 - 100.0 / 10_f64.powf(nines);
    #[expect(clippy::cast_possible_truncation, reason = "a handful of digits")]
    let digits = (nines - 2.0).max(0.0) as i32;
    format!("{percent:.*} %", usize::try_from(digits).unwrap_or(0))
}

/// Three digits: `100M`, `67.6M`, `0.0103`.
pub fn short(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e3 => (value / 1e3, "k"),
        value => (value, ""),
    };
    let step = 10_f64.powf(2.0 - value.abs().log10().floor());
    // Over the inverse: what is written is the nearest number to so many digits.
    format!("{}{unit}", (value * step).round() / step)
}

fn canvas(svg: &mut String) -> Result<DrawingArea<SVGBackend<'_>, Shift>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    Ok(area)
}

fn label_style(size: i32, vertical: VPos) -> TextStyle<'static> {
    let style = TextStyle::from((FONT, size).into_font());
    style.pos(Pos::new(HPos::Center, vertical))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_of_quantiles_is_written_in_percent() {
        assert_eq!(
            [1.0, 10.0, 100.0, 1000.0, 10_000.0].map(percentile),
            ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]
        );
    }

    #[test]
    fn three_digits_are_enough_for_a_label() {
        assert_eq!(
            [1e8, 67_634_000.0, 185_140.0, 20.0, 0.010_349, 1e-3].map(short),
            ["100M", "67.6M", "185k", "20", "0.0103", "0.001"]
        );
    }

    #[test]
    fn a_curve_ends_at_the_last_delivery_with_the_greatest_latency() {
        let mut latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        (1..=1000).for_each(|n| latency.record(n * 1_000).unwrap());
        let points = points(&latency);
        let (distance, value) = *points.last().unwrap();
        assert!((distance - 1000.0).abs() < 1e-9, "{distance}");
        assert!((value - 1000.0).abs() < 1.0, "{value}");
        assert!(points.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1));
    }

    #[test]
    fn charts_are_svg_that_loads_nothing() {
        let groups = [Group {
            name: "fanout".into(),
            bars: vec![(0, 95e6, "95 M".into()), (1, 5e6, "5 M".into())],
        }];
        let mut latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        (1..=1000).for_each(|n| latency.record(n * 1_000).unwrap());
        let curve = Curve {
            target: 0,
            latency: &latency,
        };
        for svg in [
            bars(&groups, "deliveries/s").unwrap(),
            percentiles(&[curve]).unwrap(),
        ] {
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
            assert!(!svg.contains("<script") && !svg.contains("href"), "{svg}");
        }
    }
}
