//! `status --watch`: watches Secrets and prints each change.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::select_all;
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use kube::Api;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use serde_json::json;

use super::report::Seen;
use super::row::Rotation;
use super::{SELECTORS, report};
use crate::kubernetes::explain::{Audience, explain_watch};
use crate::kubernetes::key::Key;
use crate::kubernetes::list::Namespaces;
use crate::kubernetes::secret_view::SecretView;
use crate::overlap::outlook::Rules;
use crate::tools::cluster::{ScopedClient, SecretName};
use crate::tools::error::ToolError;
use crate::tools::output::{self, Output};
use crate::tools::registration::Registration;
use crate::tools::table::Table;

/// How often the table is computed again, because ages and deadlines change with the clock. This
/// makes no API call.
const TICK: Duration = Duration::from_secs(1);

/// Watches until the output is closed or the API server denies the watch. Shows the Secrets of these
/// names only, if there are any.
pub(super) async fn run(
    cluster: &ScopedClient,
    names: &[SecretName<'_>],
    rules: &Rules,
    output: Output,
) -> Result<(), ToolError> {
    let mut events = std::pin::pin!(events(cluster));
    let mut secrets = WatchedSecrets::default();
    let mut screen = Screen::new(output);
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some((from, Ok(event))) => secrets.apply(from, &event),
                Some((_, Err(error))) => give_up_or_wait(&error, &cluster.scope)?,
                None => return Ok(()),
            },
            _ = tick.tick() => {}
        }
        if secrets.is_complete() {
            let now = Timestamp::now();
            let mut rotations = secrets.rotations(rules, now);
            rotations.retain(|key, _| cluster.is_one_of(key, names));
            if !screen.show(rotations, cluster, now)? {
                return Ok(());
            }
        }
    }
}

/// The watch events, each with the index of its selector. A watch that breaks is restarted.
fn events(
    cluster: &ScopedClient,
) -> impl Stream<Item = (usize, Result<Event<SecretView>, watcher::Error>)> + use<> {
    let api: Api<SecretView> = cluster.scope.api(&cluster.client);
    select_all(SELECTORS.into_iter().enumerate().map(|(from, selector)| {
        let own = cluster.selector.as_ref().map(|own| format!(",{own}")).unwrap_or_default();
        let config = watcher::Config::default().labels(&format!("{selector}{own}"));
        watch(api.clone(), config).default_backoff().map(move |event| (from, event)).boxed()
    }))
}

/// Fails if the user may not watch. All other errors are transient: the watch is tried again.
fn give_up_or_wait(error: &watcher::Error, scope: &Namespaces) -> Result<(), ToolError> {
    let text = explain_watch(error, Audience::Caller);
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
            if [401, 403].contains(&status.code) =>
        {
            Err(ToolError::failed(format!("cannot watch Secrets in {scope}"), text))
        }
        // The resourceVersion has expired, as happens to a long watch: the watcher lists again.
        watcher::Error::WatchError(status) if status.code == 410 => Ok(()),
        _ => {
            eprintln!("ca-overlap: the watch was interrupted, trying again: {text}");
            Ok(())
        }
    }
}

/// The Secrets as last seen, for each selector.
#[derive(Default)]
struct WatchedSecrets {
    seen: [Writer<SecretView>; SELECTORS.len()],
    is_read: [bool; SELECTORS.len()],
}

impl WatchedSecrets {
    fn apply(&mut self, from: usize, event: &Event<SecretView>) {
        self.seen[from].apply_watcher_event(event);
        self.is_read[from] |= matches!(event, Event::InitDone);
    }

    fn is_complete(&self) -> bool {
        self.is_read.iter().all(|is_read| *is_read)
    }

    fn rotations(&self, rules: &Rules, now: Timestamp) -> BTreeMap<Key, Rotation> {
        // A Secret that both selectors find is the same in both, except for a moment.
        let secrets = self.seen.iter().rev().flat_map(|seen| seen.as_reader().state());
        let rotation = |secret: Arc<SecretView>| {
            Rotation::of(&secret, None, rules, now).map(|rotation| (Key::of(&secret), rotation))
        };
        secrets.filter_map(rotation).collect()
    }
}

/// Prints the rotations, and remembers what it printed.
struct Screen {
    output: Output,
    is_terminal: bool,
    /// The rotations last printed; `None` at the start.
    shown: Option<BTreeMap<Key, Rotation>>,
}

impl Screen {
    fn new(output: Output) -> Self {
        let is_table = matches!(output, Output::Text | Output::Wide);
        let is_terminal = std::io::stdout().is_terminal() && is_table;
        Self { output, is_terminal, shown: None }
    }

    /// Returns `false` if the output is closed.
    fn show(
        &mut self,
        rotations: BTreeMap<Key, Rotation>,
        cluster: &ScopedClient,
        now: Timestamp,
    ) -> Result<bool, ToolError> {
        let is_read = if self.is_terminal {
            self.redraw(&rotations, cluster, now)?
        } else {
            self.append(&rotations, cluster, now)?
        };
        self.shown = Some(rotations);
        Ok(is_read)
    }

    /// Appends a line or an object for each change, where the output is not a terminal.
    fn append(
        &self,
        rotations: &BTreeMap<Key, Rotation>,
        cluster: &ScopedClient,
        now: Timestamp,
    ) -> Result<bool, ToolError> {
        let none = BTreeMap::new();
        let before = self.shown.as_ref().unwrap_or(&none);
        let mut text = String::new();
        if self.shown.is_none() && self.is_table() {
            if rotations.is_empty() {
                eprintln!("ca-overlap: no rotation in flight in {} yet", cluster.place());
            }
            text.push_str(&self.table().stream_head());
        }
        for (key, rotation) in rotations {
            match before.get(key) {
                Some(old) if old == rotation => {}
                Some(_) => text.push_str(&self.change("MODIFIED", rotation, now)?),
                None => text.push_str(&self.change("ADDED", rotation, now)?),
            }
        }
        for (_, rotation) in before.iter().filter(|(key, _)| !rotations.contains_key(*key)) {
            text.push_str(&self.change("DELETED", rotation, now)?);
        }
        if text.is_empty() { Ok(true) } else { Ok(output::write(&text)?) }
    }

    fn change(&self, kind: &str, rotation: &Rotation, now: Timestamp) -> Result<String, ToolError> {
        let fields = json!({"type": kind, "rotation": rotation});
        let object = || output::document("RotationChange", fields);
        Ok(match self.output {
            Output::Json => format!("{}\n", object()),
            Output::Yaml => format!("---\n{}", output::yaml(&object())?),
            _ if kind == "DELETED" => {
                format!("{}/{} is no longer in flight\n", rotation.namespace, rotation.name)
            }
            _ => self.table().stream_row(&report::row(rotation, now)),
        })
    }

    fn is_table(&self) -> bool {
        matches!(self.output, Output::Text | Output::Wide)
    }

    fn table(&self) -> Table {
        report::table(self.output == Output::Wide)
    }

    /// Redraws the whole table on a terminal.
    fn redraw(
        &self,
        rotations: &BTreeMap<Key, Rotation>,
        cluster: &ScopedClient,
        now: Timestamp,
    ) -> Result<bool, ToolError> {
        let rotations: Vec<_> = rotations.values().cloned().collect();
        let seen = Seen { rotations: &rotations, is_complete: true, now };
        let is_wide = self.output == Output::Wide;
        let text = report::to_text(&seen, &Registration::InForce, cluster, is_wide);
        let seconds = Timestamp::from_second(now.as_second()).unwrap_or(now);
        // Escape codes: cursor home, clear each line to its end, clear what is below.
        let text = text.replace('\n', "\x1b[K\n");
        let text = format!("\x1b[H{text}\x1b[K\n{seconds}; press Ctrl-C to stop\x1b[K\n\x1b[J");
        Ok(output::write(&text)?)
    }
}
