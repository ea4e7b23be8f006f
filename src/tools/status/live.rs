//! `status --watch`: each change as it happens, by watch.

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

use super::row::Rotation;
use super::{Key, SELECTORS, key, show};
use crate::kubernetes::explain::{Audience, explain_watch};
use crate::kubernetes::list::Namespaces;
use crate::kubernetes::secret_view::SecretView;
use crate::overlap::outlook::Rules;
use crate::tools::cluster::Cluster;
use crate::tools::error::Error;
use crate::tools::output::{self, Output};

/// What the clock changes is shown within this time. The API server is not asked for it.
const TICK: Duration = Duration::from_secs(1);

/// Watches until the process is told to end, nobody reads any more, or the API server refuses.
pub(super) async fn run(cluster: &Cluster, rules: &Rules, output: Output) -> Result<(), Error> {
    let mut events = std::pin::pin!(events(cluster));
    let mut world = World::default();
    let mut screen = Screen::new(output);
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some((from, Ok(event))) => world.apply(from, &event),
                Some((_, Err(error))) => give_up_or_wait(&error, &cluster.scope)?,
                None => return Ok(()),
            },
            _ = tick.tick() => {}
        }
        if world.is_complete() {
            let now = Timestamp::now();
            if !screen.show(world.rotations(rules, now), &cluster.scope, now)? {
                return Ok(());
            }
        }
    }
}

/// The changes, each with the selector by which it was seen. What breaks is begun anew.
fn events(
    cluster: &Cluster,
) -> impl Stream<Item = (usize, Result<Event<SecretView>, watcher::Error>)> + use<> {
    let api: Api<SecretView> = cluster.scope.api(&cluster.client);
    select_all(SELECTORS.into_iter().enumerate().map(|(from, selector)| {
        let config = watcher::Config::default().labels(selector);
        watch(api.clone(), config).default_backoff().map(move |event| (from, event)).boxed()
    }))
}

/// Who may not watch will not be let in later either; all else is tried again.
fn give_up_or_wait(error: &watcher::Error, scope: &Namespaces) -> Result<(), Error> {
    let text = explain_watch(error, Audience::Caller);
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
            if [401, 403].contains(&status.code) =>
        {
            Err(Error::failed(format!("cannot watch Secrets in {scope}"), text))
        }
        // Its place in the stream is forgotten, as happens to a long watch: it reads all anew.
        watcher::Error::WatchError(status) if status.code == 410 => Ok(()),
        _ => {
            eprintln!("ca-overlap: watching is interrupted, trying again: {text}");
            Ok(())
        }
    }
}

/// The Secrets as last seen, by selector.
#[derive(Default)]
struct World {
    seen: [Writer<SecretView>; SELECTORS.len()],
    is_read: [bool; SELECTORS.len()],
}

impl World {
    fn apply(&mut self, from: usize, event: &Event<SecretView>) {
        self.seen[from].apply_watcher_event(event);
        self.is_read[from] |= matches!(event, Event::InitDone);
    }

    fn is_complete(&self) -> bool {
        self.is_read.iter().all(|is_read| *is_read)
    }

    fn rotations(&self, rules: &Rules, now: Timestamp) -> BTreeMap<Key, Rotation> {
        // One that is seen by both selectors is the same in both, or will be in a moment.
        let secrets = self.seen.iter().rev().flat_map(|seen| seen.as_reader().state());
        let rotation = |secret: Arc<SecretView>| {
            Rotation::of(&secret, rules, now).map(|rotation| (key(&secret), rotation))
        };
        secrets.filter_map(rotation).collect()
    }
}

/// What was printed.
struct Screen {
    output: Output,
    is_terminal: bool,
    /// `None` before the first time.
    shown: Option<BTreeMap<Key, Rotation>>,
}

impl Screen {
    fn new(output: Output) -> Self {
        let is_terminal = std::io::stdout().is_terminal() && output == Output::Text;
        Self { output, is_terminal, shown: None }
    }

    /// Whether somebody still reads it.
    fn show(
        &mut self,
        rotations: BTreeMap<Key, Rotation>,
        scope: &Namespaces,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let is_read = if self.is_terminal {
            redraw(&rotations, scope, now)?
        } else {
            self.append(&rotations, scope, now)?
        };
        self.shown = Some(rotations);
        Ok(is_read)
    }

    /// Elsewhere each change is a line, or an object.
    fn append(
        &self,
        rotations: &BTreeMap<Key, Rotation>,
        scope: &Namespaces,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let none = BTreeMap::new();
        let before = self.shown.as_ref().unwrap_or(&none);
        let mut text = String::new();
        if self.shown.is_none() && self.output == Output::Text {
            if rotations.is_empty() {
                eprintln!("ca-overlap: no rotation in flight in {scope} yet");
            }
            text.push_str(&show::table().stream_head());
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

    fn change(&self, kind: &str, rotation: &Rotation, now: Timestamp) -> Result<String, Error> {
        let object = json!({"type": kind, "rotation": rotation});
        Ok(match self.output {
            Output::Text if kind == "DELETED" => {
                format!("{}/{} is no longer in flight\n", rotation.namespace, rotation.name)
            }
            Output::Json => format!("{object}\n"),
            Output::Yaml => format!("---\n{}", output::yaml(&object)?),
            _ => show::table().stream_row(&show::row(rotation, now)),
        })
    }
}

/// A terminal shows how it is now.
fn redraw(
    rotations: &BTreeMap<Key, Rotation>,
    scope: &Namespaces,
    now: Timestamp,
) -> Result<bool, Error> {
    let rotations: Vec<_> = rotations.values().cloned().collect();
    let text = show::to_text(&rotations, &[], scope, now);
    let seconds = Timestamp::from_second(now.as_second()).unwrap_or(now);
    // Home, each line cleared to its end, then what is below.
    let text = text.replace('\n', "\x1b[K\n");
    let text = format!("\x1b[H{text}\x1b[K\n{seconds}, live; Ctrl-C ends\x1b[K\n\x1b[J");
    Ok(output::write(&text)?)
}
