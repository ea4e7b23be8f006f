//! Programs that write Secrets in odd ways: one that replaces labels and annotations, copiers, and
//! backups. In no history a waiting key stays without a stage, a copied CA outlives its source's
//! overlap, or a write of `ca.crt` takes a setting away.

use ca_overlap::overlap::staged::KeeperHealth;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::staged::secret::{CAS, GENERATOR, TlsSecret, annotate, issuer, leaf, set};
use crate::support::property::config;

const COPIER: &str = "system:serviceaccount:kyverno:background";

/// How a program writes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Writes {
    /// A controller with the generator's values reads, and replaces data, labels and annotations.
    Replacing,
    /// Data and annotations follow the source, labels only at the creation (Kyverno).
    Cloning,
    /// Data and labels follow the source.
    Replicating,
}

/// What happens to the source.
#[derive(Clone, Copy, Debug)]
enum Event {
    Rotate(usize),
    Promote,
    /// Its carried CAs are distrusted, so it retires them.
    Retire,
    /// The copy is deleted, and made again.
    Again,
    Nothing,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..12_usize).prop_map(Event::Rotate),
        2 => Just(Event::Promote),
        2 => Just(Event::Retire),
        1 => Just(Event::Again),
        1 => Just(Event::Nothing),
    ]
}

struct World {
    source: TlsSecret,
    copy: Option<TlsSecret>,
    writes: Writes,
}

impl World {
    fn new(writes: Writes, mode: &str) -> Self {
        let mut source = TlsSecret::new(leaf(0));
        source.patch(|object| object["metadata"]["labels"] = json!({"ca-overlap.dev/mode": mode}));
        let mut world = Self { source, copy: None, writes };
        world.follow();
        world
    }

    /// The program writes the copy.
    fn follow(&mut self) -> bool {
        let source = &self.source.stored;
        let map = |name: &str| source["metadata"][name].clone();
        let Some(copy) = &mut self.copy else {
            let mut copy = TlsSecret::new(leaf(0));
            copy.uid = "copy";
            let mut object = source.clone();
            if self.writes != Writes::Cloning {
                object["metadata"]["annotations"] = json!({});
            }
            copy.create(object);
            copy.patch(|object| annotate(object, "group", "mine"));
            self.copy = Some(copy);
            return true;
        };
        let mut object = copy.stored.clone();
        object["data"] = source["data"].clone();
        match self.writes {
            Writes::Replacing => {
                object["metadata"]["labels"] = json!({"app": "x"});
                object["metadata"]["annotations"] = json!({});
            }
            Writes::Cloning => object["metadata"]["annotations"] = map("annotations"),
            Writes::Replicating => object["metadata"]["labels"] = map("labels"),
        }
        let is_changed = object["data"]["ca.crt"] != copy.stored["data"]["ca.crt"];
        copy.write(object, COPIER);
        is_changed
    }

    fn happens(&mut self, event: Event) -> Result<(), TestCaseError> {
        let source = &mut self.source;
        match event {
            Event::Rotate(leaf) => drop(source.put(&[issuer(leaf)], leaf)),
            Event::Promote => drop(source.promote()),
            Event::Retire => {
                let prints: Vec<_> = source.cas().1.iter().map(|ca| CAS[*ca].sha256()).collect();
                source.patch(|object| annotate(object, "distrust", &prints.join(",")));
                source.patch(|object| annotate(object, "distrust", ""));
            }
            Event::Again => self.copy = None,
            Event::Nothing => {}
        }
        let is_changed = self.follow();
        let copy = self.copy.as_mut().expect("a copy");
        // Fails if a pair waits without a stage.
        let is_staged = copy.stage().is_some();
        let ((cas, carried), (of_source, _)) = (copy.cas(), self.source.cas());
        let is_known = |ca: &usize| of_source.contains(ca) || carried.contains(ca);
        prop_assert!(cas.iter().all(is_known), "{cas:?} of {of_source:?}, carried {carried:?}");
        let mode = self.source.stored["metadata"]["labels"]["ca-overlap.dev/mode"].as_str();
        if mode == Some("bundle") {
            prop_assert!(!is_staged);
            prop_assert_eq!(cas, of_source);
        }
        let key = json!(copy.uid);
        for entry in copy
            .annotation("carried")
            .map_or(json!([]), |t| serde_json::from_str(t).unwrap())
            .as_array()
            .unwrap()
        {
            prop_assert_eq!(&entry["uid"], &key, "the state is its own");
        }
        if is_changed {
            prop_assert_eq!(copy.annotation("group"), Some("mine"), "no setting is lost");
        }
        if self.writes != Writes::Replacing || is_changed {
            let mode_of_copy = copy.stored["metadata"]["labels"]["ca-overlap.dev/mode"].as_str();
            prop_assert_eq!(mode_of_copy, mode);
        }
        // A write that leaves `ca.crt` alone may remove settings: a person sets them again.
        let mode = mode.map(str::to_owned);
        copy.patch(|object| {
            annotate(object, "group", "mine");
            object["metadata"]["labels"]["ca-overlap.dev/mode"] = json!(mode);
        });
        Ok(())
    }
}

proptest! {
    #![proptest_config(config(600))]

    #[test]
    fn a_copy_keeps_no_key_no_foreign_state_and_all_settings(
        writes in prop_oneof![
            Just(Writes::Replacing), Just(Writes::Cloning), Just(Writes::Replicating)
        ],
        mode in prop_oneof![Just("bundle"), Just("staged")],
        events in vec(event(), 1..10),
    ) {
        let mut world = World::new(writes, mode);
        for event in events {
            world.happens(event)?;
        }
    }

    /// Velero writes the object of its backup over nothing, or over a live one.
    #[test]
    fn a_restore_leaves_no_key_and_believes_no_state(
        before in vec(0..12_usize, 1..4),
        after in vec(0..12_usize, 0..4),
        is_promoted in any::<bool>(),
        is_live in any::<bool>(),
        has_keeper in any::<bool>(),
        mode in prop_oneof![Just("bundle"), Just("staged")],
    ) {
        let mut secret = TlsSecret::new(leaf(0));
        secret.patch(|object| object["metadata"]["labels"] = json!({"ca-overlap.dev/mode": mode}));
        let rotate = |secret: &mut TlsSecret, leaves: &[usize]| {
            for leaf in leaves {
                secret.put(&[issuer(*leaf)], *leaf);
            }
        };
        rotate(&mut secret, &before);
        let backup = secret.stored.clone();
        if is_promoted {
            secret.promote();
        }
        rotate(&mut secret, &after);
        secret.patch(|object| annotate(object, "group", "mine"));
        let is_changed = secret.stored["data"]["ca.crt"] != backup["data"]["ca.crt"];
        if is_live {
            let write = |object: &mut Value| {
                object["data"] = backup["data"].clone();
                object["metadata"] = backup["metadata"].clone();
            };
            secret.patch(write);
            if is_changed {
                prop_assert_eq!(secret.annotation("group"), Some("mine"));
            }
        } else {
            if !has_keeper {
                secret.keeper = KeeperHealth::Lost;
            }
            secret.uid = "restored";
            secret.create(backup);
            prop_assert_eq!(secret.annotation("carried"), Some("[]"));
            prop_assert!(has_keeper || secret.stage().is_none(), "nobody would promote");
        }
        let stage = secret.stage();
        prop_assert!(mode == "staged" || stage.is_none());
        // What the generator writes next is stored as ever, and bounded.
        secret.write({
            let mut object = secret.stored.clone();
            set(&mut object, &[1], leaf(1));
            object
        }, GENERATOR);
        let (cas, _) = secret.cas();
        prop_assert!(cas.len() <= 3 && cas[0] == 1, "{cas:?}");
        secret.patch(|object| object["metadata"]["labels"]["ca-overlap.dev/mode"] = "bundle".into());
        prop_assert_eq!(secret.waiting(), None);
    }
}
