//! What was measured: one figure of both daemons and of the bare system calls, sample by sample.

use serde::{Deserialize, Serialize};

/// How a figure was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// A vhost-user front end without a guest.
    Native,
    /// Programs in a guest.
    Guest,
    /// Programs in a root that comes to the guest in several ways.
    Roots,
    /// Many guests, large directories, many nodes, and nothing to do.
    Scale,
    /// How many requests programs in a guest make. Counted, not measured.
    Requests,
    /// Programs in a volume in a bucket, beside JuiceFS.
    Volumes,
    /// Programs in the objects of a bucket, beside rclone and s3fs.
    Buckets,
    /// A guest whose root is an image in a registry, from the image's name to its first command.
    Images,
    /// Operations that a plugin answers, beside the same storage compiled in.
    Plugins,
    /// A tree in a writable layer and one below it, beside the same tree in a directory.
    Layers,
}

impl Level {
    /// Every level of figures that are measured, in the order of a report.
    pub(crate) const ALL: [Self; 4] = [Self::Native, Self::Guest, Self::Roots, Self::Scale];

    /// The word on the command line and in `results.json`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Guest => "guest",
            Self::Roots => "roots",
            Self::Scale => "scale",
            Self::Requests => "requests",
            Self::Volumes => "volumes",
            Self::Buckets => "buckets",
            Self::Images => "images",
            Self::Plugins => "plugins",
            Self::Layers => "layers",
        }
    }
}

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measure {
    /// Operations a second of wall time.
    OperationsPerSecond,
    /// Processor time of all threads of the daemon, for one request.
    CpuMicrosecondsPerRequest,
    /// 2^20 bytes a second of wall time.
    MebibytesPerSecond,
    /// Wall time of a whole.
    Seconds,
    /// Bytes of memory or of a file.
    Bytes,
    /// Times a second that a daemon with nothing to do runs.
    WakeUpsPerSecond,
    /// A number of things, such as descriptors, of which fewer is better.
    Count,
}

impl Measure {
    /// Whether a larger figure is a better one.
    pub(crate) fn more_is_better(self) -> bool {
        matches!(self, Self::OperationsPerSecond | Self::MebibytesPerSecond)
    }

    /// The unit, as a table's reader knows it.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::OperationsPerSecond => "op/s",
            Self::CpuMicrosecondsPerRequest => "CPU µs",
            Self::MebibytesPerSecond => "MiB/s",
            Self::Seconds => "s",
            Self::Bytes => "bytes",
            Self::WakeUpsPerSecond => "wake-ups/s",
            Self::Count => "",
        }
    }

    /// The figure with three digits that matter and a letter for thousands, as `81.2 k`.
    pub(crate) fn shown(self, figure: f64) -> String {
        let (step, letters): (f64, &[&str]) = match self {
            Self::Bytes => (1024.0, &["", " Ki", " Mi", " Gi"]),
            Self::OperationsPerSecond | Self::Count => (1000.0, &["", " k", " M"]),
            _ => (f64::INFINITY, &[""]),
        };
        let mut scaled = figure;
        let mut letter = "";
        for next in letters {
            letter = next;
            if scaled.abs() < step {
                break;
            }
            if Some(next) != letters.last() {
                scaled /= step;
            }
        }
        let whole = scaled.fract() == 0.0 && letter.is_empty();
        let digits = match scaled.abs() {
            _ if whole => 0,
            ..10.0 => 2,
            ..100.0 => 1,
            _ => 0,
        };
        format!("{scaled:.digits$}{letter}")
    }
}

/// Who was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Side {
    /// The daemon of this project.
    Vfsd,
    /// The peer.
    Virtiofsd,
    /// The same without any daemon: what the work costs at least. System calls on the host, or a block device
    /// of the guest.
    Bare,
}

impl Side {
    /// What a reader calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vfsd => "vfsd",
            Self::Virtiofsd => "virtiofsd",
            Self::Bare => "bare calls",
        }
    }
}

/// The samples of one figure. A list is empty where a side has no such figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// How it was taken.
    pub(crate) level: Level,
    /// The operation or program, as `LOOKUP hit`.
    pub(crate) name: String,
    /// Under which circumstances, as `depth 8, 1 queue`.
    pub(crate) setting: String,
    /// What the samples count.
    pub(crate) measure: Measure,
    /// Samples of vfsd, in the order they were taken.
    pub(crate) vfsd: Vec<f64>,
    /// Samples of virtiofsd, taken in turn with those of vfsd.
    pub(crate) virtiofsd: Vec<f64>,
    /// Samples of the bare system calls.
    pub(crate) bare: Vec<f64>,
}

impl Row {
    /// A row without samples.
    pub(crate) fn new(level: Level, name: &str, setting: &str, measure: Measure) -> Self {
        Self {
            level,
            name: name.to_owned(),
            setting: setting.to_owned(),
            measure,
            vfsd: Vec::new(),
            virtiofsd: Vec::new(),
            bare: Vec::new(),
        }
    }

    /// The samples of `side`.
    pub(crate) fn samples(&self, side: Side) -> &[f64] {
        match side {
            Side::Vfsd => &self.vfsd,
            Side::Virtiofsd => &self.virtiofsd,
            Side::Bare => &self.bare,
        }
    }

    /// Adds a sample.
    pub(crate) fn push(&mut self, side: Side, sample: f64) {
        match side {
            Side::Vfsd => &mut self.vfsd,
            Side::Virtiofsd => &mut self.virtiofsd,
            Side::Bare => &mut self.bare,
        }
        .push(sample);
    }

    /// Median and range of the samples of `side`; nothing where it has none.
    pub(crate) fn summary(&self, side: Side) -> Option<Summary> {
        Summary::of(self.samples(side))
    }

    /// How many times better the median of vfsd is than that of virtiofsd: 2 is twice the
    /// operations or half the time.
    pub(crate) fn ratio(&self) -> Option<f64> {
        self.better(Side::Virtiofsd)
    }

    /// How many times better the median of vfsd is than that of the bare calls: 0.5 is half
    /// their speed.
    pub(crate) fn of_bare(&self) -> Option<f64> {
        self.better(Side::Bare)
    }

    fn better(&self, than: Side) -> Option<f64> {
        let ours = self.summary(Side::Vfsd)?.median;
        let theirs = self.summary(than)?.median;
        let (above, below) = if self.measure.more_is_better() {
            (ours, theirs)
        } else {
            (theirs, ours)
        };
        (below != 0.0).then(|| above / below)
    }
}

/// Samples in three figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    /// The middle sample, or the mean of the middle two.
    pub(crate) median: f64,
    /// The least sample.
    pub(crate) low: f64,
    /// The greatest sample.
    pub(crate) high: f64,
}

impl Summary {
    /// Nothing of no samples.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            *sorted.get(middle)?
        } else {
            (sorted.get(middle.checked_sub(1)?)? + sorted.get(middle)?) / 2.0
        };
        Some(Self {
            median,
            low: *sorted.first()?,
            high: *sorted.last()?,
        })
    }

    /// How far the samples lie apart, as a part of the median.
    pub(crate) fn spread(&self) -> f64 {
        if self.median == 0.0 {
            return 0.0;
        }
        (self.high - self.low) / self.median
    }
}

/// The rows of a run, in the order their first samples came.
#[derive(Debug, Default)]
pub(crate) struct Board {
    rows: Vec<Row>,
}

impl Board {
    /// The row of that name, setting and measure, made when there is none.
    pub(crate) fn row(
        &mut self,
        level: Level,
        name: &str,
        setting: &str,
        measure: Measure,
    ) -> &mut Row {
        let there = self.rows.iter().position(|row| {
            row.level == level
                && row.measure == measure
                && row.name == name
                && row.setting == setting
        });
        let at = there.unwrap_or_else(|| {
            self.rows.push(Row::new(level, name, setting, measure));
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }

    /// The rows so far.
    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(measure: Measure, vfsd: &[f64], virtiofsd: &[f64]) -> Row {
        Row {
            vfsd: vfsd.to_vec(),
            virtiofsd: virtiofsd.to_vec(),
            ..Row::new(Level::Native, "LOOKUP hit", "depth 1, 1 queue", measure)
        }
    }

    #[test]
    fn a_median_is_the_middle_sample_or_between_the_middle_two() {
        let odd = Summary::of(&[5.0, 1.0, 3.0]).unwrap();
        assert_eq!((odd.median, odd.low, odd.high), (3.0, 1.0, 5.0));
        assert_eq!(Summary::of(&[4.0, 1.0, 2.0, 9.0]).unwrap().median, 3.0);
        assert_eq!(Summary::of(&[7.0]).unwrap().median, 7.0);
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn the_spread_is_a_part_of_the_median() {
        assert_eq!(Summary::of(&[8.0, 10.0, 13.0]).unwrap().spread(), 0.5);
    }

    #[test]
    fn twice_the_operations_and_half_the_time_are_both_a_ratio_of_two() {
        let faster = row(Measure::OperationsPerSecond, &[20.0], &[10.0]);
        assert_eq!(faster.ratio(), Some(2.0));
        let cheaper = row(Measure::CpuMicrosecondsPerRequest, &[5.0], &[10.0]);
        assert_eq!(cheaper.ratio(), Some(2.0));
    }

    #[test]
    fn a_row_without_peer_has_no_ratio() {
        assert_eq!(row(Measure::Seconds, &[1.0], &[]).ratio(), None);
        assert_eq!(row(Measure::WakeUpsPerSecond, &[0.0], &[3.0]).ratio(), None);
    }

    #[test]
    fn a_row_is_read_back_as_it_was_written() {
        let written = row(Measure::Bytes, &[1.5, 2.0], &[3.0]);
        let text = serde_json::to_string(&written).unwrap();
        assert!(text.contains(r#""level":"native""#), "{text}");
        assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), written);
    }

    #[test]
    fn samples_of_one_figure_share_a_row() {
        let mut board = Board::default();
        for (side, sample) in [(Side::Vfsd, 1.0), (Side::Bare, 2.0), (Side::Vfsd, 3.0)] {
            board
                .row(Level::Scale, "idle", "", Measure::Bytes)
                .push(side, sample);
        }
        board.row(Level::Scale, "idle", "", Measure::Count);
        assert_eq!(board.rows().len(), 2);
        assert_eq!(board.rows()[0].vfsd, [1.0, 3.0]);
    }

    #[test]
    fn figures_are_shown_with_the_digits_that_matter() {
        let shown = |measure: Measure, figure| measure.shown(figure);
        assert_eq!(shown(Measure::OperationsPerSecond, 81_234.0), "81.2 k");
        assert_eq!(shown(Measure::OperationsPerSecond, 2_500_000.0), "2.50 M");
        assert_eq!(shown(Measure::CpuMicrosecondsPerRequest, 3.456), "3.46");
        assert_eq!(shown(Measure::MebibytesPerSecond, 12_345.6), "12346");
        assert_eq!(shown(Measure::Bytes, 10.0 * 1024.0 * 1024.0), "10.0 Mi");
        assert_eq!(shown(Measure::Count, 3.0), "3");
    }
}
