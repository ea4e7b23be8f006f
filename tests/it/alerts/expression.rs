//! Finds the metrics in a `PromQL` expression. It understands only the expressions of this
//! repository.

/// Labels that Prometheus adds to each target.
const OF_TARGETS: [&str; 4] = ["cluster", "namespace", "job", "instance"];

/// A metric in an expression, with the labels and values that it must have.
#[derive(Debug)]
pub struct Used {
    pub name: String,
    labels: Vec<(String, Vec<String>)>,
    /// The matchers of labels that Prometheus adds.
    pub narrowed: Vec<(String, String)>,
}

/// Returns the metrics of the program and of the API server in an expression. Their labels come
/// from matchers and from `by (…)`.
pub fn metrics(expression: &str) -> Vec<Used> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let by = expression.split("by (").skip(1).chain(expression.split("on (").skip(1));
    let by = by.filter_map(|rest| rest.split(')').next()).flat_map(|list| list.split(','));
    let by: Vec<&str> =
        by.map(str::trim).filter(|l| !l.is_empty() && !OF_TARGETS.contains(l)).collect();
    let mut found = Vec::new();
    for prefix in ["ca_overlap_", "apiserver_", "process_"] {
        for (at, _) in expression.match_indices(prefix) {
            if expression[..at].ends_with(is_word) {
                continue;
            }
            let name: String = expression[at..].chars().take_while(|c| is_word(*c)).collect();
            let rest = &expression[at + name.len()..];
            let matchers = rest.strip_prefix('{').and_then(|rest| rest.split('}').next());
            let matchers = matchers.unwrap_or_default().split(", ").filter_map(|matcher| {
                let (label, value) = matcher.split_once('=')?;
                let values = value.trim_start_matches('~').trim_matches('"').split('|');
                Some((label.to_owned(), values.map(str::to_owned).collect()))
            });
            let (narrowed, mut labels): (Vec<_>, Vec<_>) = matchers
                .partition(|(label, _): &(String, Vec<String>)| OF_TARGETS.contains(&&**label));
            let narrowed = narrowed.into_iter().map(|(label, values)| (label, values.concat()));
            for label in &by {
                if !labels.iter().any(|(known, _)| known == label) {
                    labels.push(((*label).to_owned(), Vec::new()));
                }
            }
            found.push(Used { name, labels, narrowed: narrowed.collect() });
        }
    }
    found
}

/// Whether series of this name have all of these labels and values.
pub fn is_exported(metric: &Used, exported: &str) -> bool {
    let series: Vec<&str> = exported
        .lines()
        .filter(|line| line.split(['{', ' ']).next() == Some(&metric.name))
        .collect();
    let has = |what: &str| series.iter().any(|line| line.contains(what));
    let has_value = |label: &str, value: &String| match value.strip_prefix(".*") {
        Some(end) => has(&format!("{end}\"")),
        None => has(&format!("{label}=\"{value}\"")),
    };
    !series.is_empty()
        && metric.labels.iter().all(|(label, values)| {
            has(&format!("{label}=\"")) && values.iter().all(|value| has_value(label, value))
        })
}

#[test]
fn an_expression_is_parsed_into_metrics_and_labels() {
    let text = "sum by (code) (rate(ca_overlap_a_total{job=~\"$job\", x=\"1\", y=~\"b|c\"}[5m])) > 0 and up == 1";
    let used = metrics(text);
    assert_eq!(used.len(), 1);
    assert_eq!(used[0].name, "ca_overlap_a_total");
    assert_eq!(used[0].narrowed, [("job".to_owned(), "$job".to_owned())]);
    let expected = [("x", vec!["1"]), ("y", vec!["b", "c"]), ("code", vec![])];
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(label, values)| {
            (label.to_owned(), values.into_iter().map(str::to_owned).collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(used[0].labels, expected);
    assert!(is_exported(
        &used[0],
        "ca_overlap_a_total{code=\"4\",x=\"1\",y=\"b\"} 0\nca_overlap_a_total{code=\"4\",x=\"1\",y=\"c\"} 0"
    ));
    assert!(!is_exported(&used[0], "ca_overlap_a_total{code=\"4\",x=\"1\",y=\"b\"} 0"));
    assert!(!is_exported(&used[0], "ca_overlap_a{code=\"4\",x=\"1\",y=\"b\"} 0"));
}
