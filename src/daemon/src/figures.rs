//! What storages tell of themselves among the metrics.

use std::fmt::{self, Write};

use parking_lot::Mutex;

/// A figure of a storage at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    /// In Prometheus's form, unit included. One name is always of one kind.
    pub(crate) name: &'static str,
    /// What it counts, where several figures have the name: a label and its value.
    pub(crate) label: Option<(&'static str, &'static str)>,
    pub(crate) value: Value,
}

/// A figure that there is one of.
pub(crate) fn plain(name: &'static str, value: Value) -> Figure {
    Figure {
        name,
        label: None,
        value,
    }
}

/// What a figure says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value {
    /// Only grows.
    Counter(u64),
    /// How much there is right now.
    Amount(u64),
    /// The same, of what is no whole number.
    Gauge(f64),
}

type Look = Box<dyn Fn() -> Vec<Figure> + Send + Sync>;

/// Where storages that are opened say what can be told of them.
#[derive(Default)]
pub(crate) struct Figures(Mutex<Vec<(String, Look)>>);

impl Figures {
    /// Tells of `storage`, as the command line names it, whatever `look` finds when somebody asks. It must not wait.
    pub(crate) fn add(
        &self,
        storage: &impl fmt::Display,
        look: impl Fn() -> Vec<Figure> + Send + Sync + 'static,
    ) {
        self.0.lock().push((storage.to_string(), Box::new(look)));
    }

    /// All of them as Prometheus text.
    pub(crate) fn text(&self) -> String {
        let mut found: Vec<(String, Figure)> = Vec::new();
        for (storage, look) in self.0.lock().iter() {
            found.extend(look().into_iter().map(|figure| (storage.clone(), figure)));
        }
        // All figures of a name stand together. Storages are opened in any order.
        found.sort_by(|(one, a), (other, b)| (a.name, one).cmp(&(b.name, other)));
        let found = merged(found);
        let mut text = String::new();
        let mut before = "";
        for (storage, Figure { name, label, value }) in found {
            let kind = match value {
                Value::Counter(_) => "counter",
                Value::Amount(_) | Value::Gauge(_) => "gauge",
            };
            // Writing to a string does not fail.
            if name != before {
                let _ = writeln!(text, "# TYPE {name} {kind}");
                before = name;
            }
            let _ = write!(text, "{name}{{storage=\"{}\"", escaped(&storage));
            if let Some((label, value)) = label {
                let _ = write!(text, ",{label}={value:?}");
            }
            let _ = match value {
                Value::Counter(value) | Value::Amount(value) => writeln!(text, "}} {value}"),
                Value::Gauge(value) => writeln!(text, "}} {value}"),
            };
        }
        text
    }
}

/// What there is once for each name and label, as the format wants it: several exports may be of one storage.
fn merged(found: Vec<(String, Figure)>) -> Vec<(String, Figure)> {
    let mut once: Vec<(String, Figure)> = Vec::new();
    for (storage, figure) in found {
        let of_name = once
            .iter_mut()
            .rev()
            .take_while(|(before, it)| (before, it.name) == (&storage, figure.name));
        let same = of_name.into_iter().find(|(_, it)| it.label == figure.label);
        match same {
            Some((_, before)) => before.value = before.value.with(figure.value),
            None => once.push((storage, figure)),
        }
    }
    once
}

impl Value {
    /// What two exports of one storage say together: they count each for itself, and have the same things.
    fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Counter(one), Self::Counter(other)) => Self::Counter(one.saturating_add(other)),
            (Self::Amount(one), Self::Amount(other)) => Self::Amount(one.max(other)),
            (Self::Gauge(one), Self::Gauge(other)) => Self::Gauge(one.max(other)),
            // One name is always of one kind.
            (one, _) => one,
        }
    }
}

/// A label's value, as the format has it.
fn escaped(value: &str) -> String {
    let value = value.replace('\\', "\\\\");
    value.replace('"', "\\\"").replace('\n', "\\n")
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Figures").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_one_name_stand_together_whichever_storage_they_are_of() {
        let figures = Figures::default();
        for (storage, sent) in [("volume:s3://b/one", 7), ("volume:s3://b/\"two\"", 8)] {
            figures.add(&storage, move || {
                let counter = |label| Figure {
                    name: "requests_total",
                    label: Some(("operation", label)),
                    value: Value::Counter(sent),
                };
                let lag = Figure {
                    name: "lag_seconds",
                    label: None,
                    value: Value::Gauge(1.5),
                };
                vec![counter("get"), lag, counter("put")]
            });
        }
        let expected = r#"# TYPE lag_seconds gauge
lag_seconds{storage="volume:s3://b/\"two\""} 1.5
lag_seconds{storage="volume:s3://b/one"} 1.5
# TYPE requests_total counter
requests_total{storage="volume:s3://b/\"two\"",operation="get"} 8
requests_total{storage="volume:s3://b/\"two\"",operation="put"} 8
requests_total{storage="volume:s3://b/one",operation="get"} 7
requests_total{storage="volume:s3://b/one",operation="put"} 7
"#;
        assert_eq!(figures.text(), expected);
    }

    #[test]
    fn two_exports_of_one_storage_are_told_of_once() {
        let figures = Figures::default();
        for (sent, there) in [(7, 5), (1, 3)] {
            figures.add(&"docker://r/a:t", move || {
                let counter = |label| Figure {
                    name: "requests_total",
                    label: Some(("kind", label)),
                    value: Value::Counter(sent),
                };
                let bytes = Figure {
                    name: "bytes",
                    label: None,
                    value: Value::Amount(there),
                };
                vec![counter("blob"), bytes, counter("token")]
            });
        }
        let expected = r#"# TYPE bytes gauge
bytes{storage="docker://r/a:t"} 5
# TYPE requests_total counter
requests_total{storage="docker://r/a:t",kind="blob"} 8
requests_total{storage="docker://r/a:t",kind="token"} 8
"#;
        assert_eq!(figures.text(), expected);
    }

    #[test]
    fn without_storages_that_tell_anything_there_is_nothing() {
        let figures = Figures::default();
        figures.add(&"dir:/srv", Vec::new);
        assert_eq!(figures.text(), "");
    }
}
