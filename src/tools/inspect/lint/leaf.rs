//! Rules for the leaf and the CA that issued it.

use std::collections::BTreeSet;

use x509_parser::error::X509Error;

use super::{Finding, Rule, numbered};
use crate::names;
use crate::tools::inspect::facts::{Facts, subject_alternative_names};
use crate::tools::text::{day, name};
use crate::x509::certs::{Bundle, Certificate, Fingerprint};
use crate::x509::issuer::{could_have_issued, is_root};

pub(super) fn check(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    let Some(leaf) = facts.leaf() else { return };
    for (key, chain) in [(names::TLS_CRT, &facts.chain), (names::PENDING_TLS_CRT, &facts.pending)] {
        findings.extend(chain.certificates().first().and_then(|leaf| dates(key, leaf, facts)));
    }
    findings.extend(without_names(leaf));
    findings.extend(root_differs(facts));
    let by_signature = [
        not_chained(names::TLS_CRT, &facts.chain, facts),
        not_chained(names::PENDING_TLS_CRT, &facts.pending, facts),
        needs_carried(facts),
        not_first(facts),
        outlives(leaf, facts),
    ];
    // After a check that was not made, they may be wrong.
    if !facts.issuers.has_refused() {
        findings.extend(by_signature.into_iter().flatten());
    }
}

fn not_chained(key: &str, chain: &Bundle, facts: &Facts<'_>) -> Option<Finding> {
    let (leaf, ca) = (chain.certificates().first()?, facts.ca.certificates());
    let verifies = if key == names::TLS_CRT {
        facts.verifies_leaf.contains(&true)
    } else {
        facts.issuers.verifies(chain.certificates(), ca)
    };
    if ca.is_empty() || verifies || facts.issuers.has_refused() {
        return None;
    }
    let why = why_not(chain.certificates(), ca)?;
    let text = format!(
        "The leaf in {key} does not verify against ca.crt: {why}. Readers of this ca.crt reject \
         the leaf; make the generator issue both together."
    );
    Some(Finding::new(Rule::LeafNotChained, text).about([leaf]))
}

/// Why no certificate of `ca` issued the chain; `None` if the algorithm of a signature is not
/// supported, so that it cannot be checked.
fn why_not(chain: &[Certificate], ca: &[Certificate]) -> Option<String> {
    let top = top(chain)?;
    if is_root(top) {
        return Some(
            "its chain ends in a self-signed certificate that ca.crt does not hold".into(),
        );
    }
    let named: Vec<_> = ca.iter().filter(|issuer| issuer.subject() == top.issuer()).collect();
    if named.is_empty() {
        let issuer = top.parsed().map(|parsed| name(parsed.issuer()));
        let issuer = issuer.unwrap_or_default();
        return Some(format!("no CA in it has the name of the issuer, {issuer}"));
    }
    let fitting: Vec<_> = named.into_iter().filter(|ca| could_have_issued(ca, top)).collect();
    if fitting.is_empty() {
        return Some("the CA with the name of the issuer has another key".into());
    }
    let is_unknown = |issuer: &&&Certificate| {
        let (Some(issuer), Some(child)) = (issuer.parsed(), top.parsed()) else { return true };
        let result = child.verify_signature(Some(issuer.public_key()));
        result == Err(X509Error::SignatureUnsupportedAlgorithm)
    };
    if fitting.iter().any(|issuer| is_unknown(&issuer)) {
        return None;
    }
    Some("it was not signed with the key of the CA with that name".into())
}

/// The topmost certificate of the chain, found by names and key ids.
fn top(chain: &[Certificate]) -> Option<&Certificate> {
    let (mut top, mut rest) = chain.split_first().map(|(leaf, rest)| {
        let rest: Vec<&Certificate> = rest.iter().collect();
        (leaf, rest)
    })?;
    while let Some(above) = rest.iter().position(|c| !is_root(top) && could_have_issued(c, top)) {
        top = rest.remove(above);
    }
    Some(top)
}

fn dates(key: &str, leaf: &Certificate, facts: &Facts<'_>) -> Option<Finding> {
    let begin = leaf.parsed().map(|parsed| parsed.validity().not_before.timestamp());
    let finding = if leaf.is_expired(facts.now) {
        let text = format!("The leaf in {key} expired on {}.", day(leaf.not_after()));
        Finding::new(Rule::LeafExpired, text)
    } else if begin.is_some_and(|begin| begin > facts.now.as_second()) {
        let text = format!(
            "The leaf in {key} is not valid before {}: a clock is wrong, or it was issued early.",
            day(begin.unwrap_or_default())
        );
        Finding::new(Rule::LeafNotYetValid, text)
    } else {
        return None;
    };
    Some(finding.about([leaf]))
}

/// Silent while a rotation is staged: then the old leaf is in service on purpose.
fn needs_carried(facts: &Facts<'_>) -> Option<Finding> {
    let needed: Vec<usize> = needed(facts);
    let certificates = facts.ca.certificates();
    let are_carried = needed.iter().all(|&index| facts.is_previous(&certificates[index]));
    if needed.is_empty() || !are_carried || facts.outlook.stage.is_some() {
        return None;
    }
    let text = format!(
        "The leaf verifies only against {} of ca.crt, which is carried: the CA was renewed and the \
         leaf was not. Make the generator issue a new leaf before the overlap ends.",
        numbered(&needed)
    );
    Some(
        Finding::new(Rule::LeafNeedsCarriedCa, text)
            .about(needed.iter().map(|&i| &certificates[i])),
    )
}

/// Silent while a rotation is staged: then the new CA is first, and the old leaf in service.
fn not_first(facts: &Facts<'_>) -> Option<Finding> {
    let needed = needed(facts);
    let first = *needed.first()?;
    if first == 0 || facts.outlook.stage.is_some() {
        return None;
    }
    let text = format!(
        "The leaf needs {} of ca.crt. Readers that use only the first certificate of a file reject \
         the leaf.",
        numbered(&needed)
    );
    let about = needed.iter().map(|&index| &facts.ca.certificates()[index]);
    Some(Finding::new(Rule::ActiveCaNotFirst, text).about(about))
}

/// The certificates of `ca.crt` against which the leaf verifies, each as the only trust anchor.
fn needed(facts: &Facts<'_>) -> Vec<usize> {
    (0..facts.verifies_leaf.len()).filter(|&index| facts.verifies_leaf[index]).collect()
}

fn outlives(leaf: &Certificate, facts: &Facts<'_>) -> Option<Finding> {
    let mut pool: Vec<Certificate> = facts.ca.certificates().to_vec();
    let more = facts.chain.certificates().iter().filter(|c| !facts.ca.contains(c));
    pool.extend(more.cloned());
    let end = issuers_end(leaf, &pool, facts, &mut BTreeSet::new())?;
    if leaf.not_after() <= end {
        return None;
    }
    let text = format!(
        "The leaf is valid until {}, but its CA only until {}: readers then reject the leaf. Renew \
         the CA before that date, and the leaf with it.",
        day(leaf.not_after()),
        day(end)
    );
    Some(Finding::new(Rule::LeafOutlivesCa, text).about([leaf]))
}

/// When the last path from `child` to an anchor expires, in seconds since the Unix epoch; `None` if
/// there is no path.
fn issuers_end(
    child: &Certificate,
    pool: &[Certificate],
    facts: &Facts<'_>,
    seen: &mut BTreeSet<Fingerprint>,
) -> Option<i64> {
    if facts.ca.contains(child) || !seen.insert(child.fingerprint()) {
        return None;
    }
    let issuers = facts.issuers.of(child, pool, &[]);
    let ends = issuers.into_iter().filter_map(|index| {
        let issuer = &pool[index];
        let above = issuers_end(issuer, pool, facts, seen);
        let is_anchor = facts.ca.contains(issuer);
        (is_anchor || above.is_some())
            .then(|| issuer.not_after().min(above.unwrap_or(issuer.not_after())))
    });
    ends.max()
}

fn without_names(leaf: &Certificate) -> Option<Finding> {
    if leaf.is_ca() || !subject_alternative_names(leaf)?.is_empty() {
        return None;
    }
    let text = "The leaf has no subject alternative name. Go, and so the API server, ignores the \
                common name: clients that check the server's name reject the leaf.";
    Some(Finding::new(Rule::LeafWithoutNames, text).about([leaf]))
}

/// Finds a root in the chain that has the key of an anchor but is another certificate.
fn root_differs(facts: &Facts<'_>) -> Option<Finding> {
    let key = |certificate: &Certificate| {
        certificate.parsed().map(|parsed| parsed.public_key().raw.to_vec())
    };
    let embedded = facts.chain.certificates().iter().skip(1).find(|embedded| {
        is_root(embedded) && !facts.ca.contains(embedded) && {
            let embedded = key(embedded);
            embedded.is_some() && facts.ca.certificates().iter().any(|ca| key(ca) == embedded)
        }
    })?;
    let text = "tls.crt contains a root that has the key of a CA in ca.crt but is another \
                certificate. Readers that compare the certificate itself, as Java does, reject the \
                chain: remove the root from tls.crt, or add the same certificate to ca.crt.";
    Some(Finding::new(Rule::RootInChainDiffers, text).about([embedded]))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use devtools::certs::{self, CA, Identity, Spec};

    use super::super::lint;
    use super::*;
    use crate::overlap::outlook::Rules;
    use crate::overlap::settings::Defaults;
    use crate::tools::inspect::InspectedObject;
    use crate::x509::issuer::signature_checks;

    /// How many signatures are checked, and which rules fire.
    fn checked(cas: &[Identity], chain: &[&Identity]) -> (usize, Vec<Rule>) {
        let ca_crt: String = cas.iter().map(|ca| ca.pem.as_str()).collect();
        let tls_crt = certs::bundle(chain);
        let object =
            InspectedObject::of_pem("it".into(), ca_crt.into_bytes(), Some(tls_crt.into_bytes()));
        let rules = Rules { defaults: Defaults::default(), settle: Duration::ZERO };
        let before = signature_checks();
        let findings = lint(&Facts::of(&object, &rules, certs::now()));
        (signature_checks() - before, findings.iter().map(|finding| finding.rule).collect())
    }

    #[test]
    fn look_alikes_cost_one_budget_and_nothing_is_said_about_what_was_not_checked() {
        let look_alike = |_| Spec { key_ids: false, ..CA }.self_signed();
        let cas: Vec<Identity> = (0..70).map(look_alike).collect();
        let leaf = certs::leaf(&cas[69], false);
        let (checks, rules) = checked(&cas, &[&leaf]);
        // The outlook has a budget of its own.
        assert!((64..=2 * 64).contains(&checks), "{checks}");
        assert_eq!(rules, [Rule::LeafWithoutNames, Rule::SameSubject]);
        let few = checked(&cas[..9], &[&leaf]).1;
        assert!(few.contains(&Rule::LeafNotChained), "{few:?}");
    }

    #[test]
    fn a_chain_is_checked_once_for_all_cas_of_a_list() {
        let mut cas: Vec<Identity> = (0..100).map(|n| certs::ca_named(&n.to_string())).collect();
        let between = Spec { subject: "between", ..CA }.signed_by(&cas[40]);
        cas.swap(0, 40);
        let (checks, rules) = checked(&cas, &[&between.leaf("it"), &between]);
        assert!(checks <= 8 && rules.is_empty(), "{checks} {rules:?}");
    }
}
