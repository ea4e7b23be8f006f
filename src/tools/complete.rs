//! Values that a shell completes: namespaces, Secrets and contexts. The cluster is asked for names only,
//! within a short time, and what fails completes nothing.

use std::ffi::OsStr;
use std::sync::mpsc::channel;
use std::time::Duration;

use clap_complete::engine::{CompletionCandidate, PathCompleter, ValueCompleter};
use http::Request;
use http::header::ACCEPT;
use kube::Client;
use kube::config::Kubeconfig;
use serde_json::Value;

use super::cluster::{KubeconfigArgs, ScopeArgs, ScopedClient};
use crate::names;

/// How long a person waits. A plugin that fetches a token may take longer, and is left behind.
const LIMIT: Duration = Duration::from_secs(2);
/// The most names of a list.
const MOST: u16 = 500;
/// A table has the names, and without an object in each row nothing else of it.
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// Namespaces.
pub(crate) fn namespaces(current: &OsStr) -> Vec<CompletionCandidate> {
    beginning(current, ask(Wanted::Namespaces))
}

/// Secrets: of the namespace of the command line, or as NAMESPACE/NAME.
pub(crate) fn secrets(current: &OsStr) -> Vec<CompletionCandidate> {
    let namespace = current.to_str().and_then(|text| text.split_once('/')).map(|(it, _)| it);
    if namespace.is_some_and(|name| !names::is_namespace(name)) {
        return Vec::new();
    }
    beginning(current, ask(Wanted::Secrets(namespace.map(str::to_owned))))
}

/// Files, and Secrets as above.
pub(crate) fn files_and_secrets(current: &OsStr) -> Vec<CompletionCandidate> {
    let mut all = PathCompleter::any().stdio().complete(current);
    all.extend(secrets(current));
    all
}

/// Contexts of the kubeconfig.
pub(crate) fn contexts(current: &OsStr) -> Vec<CompletionCandidate> {
    let read = match flag(&words(), &["--kubeconfig"]) {
        Some(file) => Kubeconfig::read_from(file),
        None => Kubeconfig::read(),
    };
    let contexts = read.map(|file| file.contexts).unwrap_or_default();
    beginning(current, contexts.into_iter().map(|context| context.name))
}

fn beginning(current: &OsStr, all: impl IntoIterator<Item = String>) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let fits = all.into_iter().filter(|name| name.starts_with(&*current));
    fits.map(CompletionCandidate::new).collect()
}

/// What to ask the cluster for.
enum Wanted {
    Namespaces,
    /// Those of this namespace.
    Secrets(Option<String>),
}

/// Asks in a thread of its own: a program that the kubeconfig names blocks it.
fn ask(wanted: Wanted) -> Vec<String> {
    let (sender, answer) = channel();
    let scope = scope(&words());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let found = runtime.ok().and_then(|runtime| runtime.block_on(answered(&scope, wanted)));
        sender.send(found.unwrap_or_default())
    });
    answer.recv_timeout(LIMIT).unwrap_or_default()
}

async fn answered(scope: &ScopeArgs, wanted: Wanted) -> Option<Vec<String>> {
    let ScopedClient { client, namespace: own, .. } = scope.connect().await.ok()?;
    let secrets = |namespace: &str| format!("namespaces/{namespace}/secrets");
    match wanted {
        Wanted::Namespaces => list(&client, "namespaces").await,
        Wanted::Secrets(Some(namespace)) => {
            let found = list(&client, &secrets(&namespace)).await?;
            Some(found.into_iter().map(|name| format!("{namespace}/{name}")).collect())
        }
        Wanted::Secrets(None) => {
            let mut found = list(&client, &secrets(&own)).await.unwrap_or_default();
            let others = list(&client, "namespaces").await.unwrap_or_default();
            found.extend(others.into_iter().map(|namespace| format!("{namespace}/")));
            Some(found)
        }
    }
}

async fn list(client: &Client, what: &str) -> Option<Vec<String>> {
    let path = format!("/api/v1/{what}?limit={MOST}&includeObject=None");
    let request = Request::get(path).header(ACCEPT, TABLE).body(Vec::new()).ok()?;
    let table: Value = client.request(request).await.ok()?;
    let name = |row: &Value| row["cells"][0].as_str().map(str::to_owned);
    Some(table["rows"].as_array()?.iter().filter_map(name).collect())
}

/// The words of the command line so far.
fn words() -> Vec<String> {
    std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect()
}

/// The cluster and the namespace that the words name. clap cannot read them, because the line is not
/// complete.
fn scope(words: &[String]) -> ScopeArgs {
    ScopeArgs {
        namespace: flag(words, &["--namespace", "-n"]).filter(|name| names::is_namespace(name)),
        access: KubeconfigArgs {
            kubeconfig: flag(words, &["--kubeconfig"]).map(Into::into),
            context: flag(words, &["--context"]),
            impersonate: flag(words, &["--as"]),
            request_timeout: LIMIT,
            ..KubeconfigArgs::default()
        },
        ..ScopeArgs::default()
    }
}

/// The value of a flag.
fn flag(words: &[String], names: &[&str]) -> Option<String> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        for name in names {
            match word.strip_prefix(name) {
                Some("") => return words.next().cloned(),
                Some(rest) if rest.starts_with('=') => return Some(rest[1..].to_owned()),
                Some(rest) if !name.starts_with("--") => return Some(rest.to_owned()),
                _ => {}
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scope_is_that_of_the_line_so_far() {
        for line in ["status -n a", "status --namespace a -w", "x --namespace=a y", "-na", "-n=a"] {
            let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(scope(&words).namespace.as_deref(), Some("a"), "{line}");
        }
        for line in ["status -A", "status -n", "status -n A", "status --name a"] {
            let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(scope(&words).namespace, None, "{line}");
        }
    }
}
