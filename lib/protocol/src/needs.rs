//! What an agent must understand to honour a spec. Unknown fields are ignored, so an older agent would run a job without what it asks for: with another
//! user's rights, without its limits. So each field of [`RunSpec`] that changes what is run has a version here. A server places a job only where all that it
//! asks for is honoured, and says in the spec which version that needs, so that an agent that does not speak it refuses.

use crate::convert::Malformed;
use crate::handshake::{PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};
use crate::message::{LeftoversKind, RunSpec};

/// A field, the version that brought it, and whether a spec asks for it.
type Since = (&'static str, u32, fn(&RunSpec) -> bool);

/// Every field that an agent of the lowest version does not honour. A new field of [`RunSpec`] gets a line here.
const SINCE: [Since; 7] = [
    ("user", 2, |spec| spec.user.is_some()),
    ("umask", 2, |spec| spec.umask.is_some()),
    ("nice", 2, |spec| spec.nice.is_some()),
    ("limits", 2, |spec| !spec.limits.is_empty()),
    ("output limit", 2, |spec| spec.output_limit.is_some()),
    ("leftovers", 2, |spec| spec.leftovers.is_some_and(|what| what != LeftoversKind::Kill as i32)),
    ("capture", 2, |spec| !spec.capture.is_empty()),
];

/// What a spec needs of its agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// The lowest protocol version that honours it all.
    pub version: u32,
    /// What needs it, for people; empty if any agent will do.
    pub what: Vec<&'static str>,
}

impl Needs {
    /// What an agent that speaks `version` does not honour of it, as words for people.
    pub fn beyond(&self, version: u32) -> Option<String> {
        (self.version > version).then(|| self.what.join(", "))
    }
}

impl RunSpec {
    /// What it needs, by the fields that it has.
    pub fn needs_of_fields(&self) -> Needs {
        let mut needs = Needs { version: PROTOCOL_VERSION_MIN, what: Vec::new() };
        for (name, since, asks) in SINCE {
            if asks(self) && since > PROTOCOL_VERSION_MIN {
                needs.version = needs.version.max(since);
                needs.what.push(name);
            }
        }
        needs
    }

    /// The same spec, saying what it needs.
    #[must_use]
    pub fn with_needs(self) -> RunSpec {
        let version = self.needs_of_fields().version;
        RunSpec { needs: Some(version).filter(|version| *version > PROTOCOL_VERSION_MIN), ..self }
    }

    /// Whether this program honours all that it asks for; the error names both versions.
    pub fn check_needs(&self) -> Result<(), Malformed> {
        match self.needs {
            Some(needs) if needs > PROTOCOL_VERSION => {
                Err(Malformed::TooNew { needs, speaks: PROTOCOL_VERSION })
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Limit, OutputLimit};

    fn asks(change: impl FnOnce(&mut RunSpec)) -> Needs {
        let mut spec = RunSpec::default();
        change(&mut spec);
        spec.needs_of_fields()
    }

    #[test]
    fn a_spec_without_newer_fields_runs_on_any_agent_and_says_nothing() {
        let plain = asks(|spec| {
            spec.timeout_ms = Some(1);
            spec.leftovers = Some(LeftoversKind::Kill as i32); // what an agent does anyway
        });
        assert_eq!(plain, Needs { version: 1, what: Vec::new() });
        assert_eq!(RunSpec::default().with_needs(), RunSpec::default());
        assert_eq!(plain.beyond(1), None);
    }

    #[test]
    fn each_field_that_an_older_agent_would_ignore_is_named_with_its_version() {
        let limit = Limit { resource: "core".to_owned(), soft: None, hard: None };
        for (needs, name) in [
            (asks(|spec| spec.user = Some("ann".to_owned())), "user"),
            (asks(|spec| spec.umask = Some(0)), "umask"),
            (asks(|spec| spec.nice = Some(0)), "nice"),
            (asks(|spec| spec.limits = vec![limit]), "limits"),
            (asks(|spec| spec.output_limit = Some(OutputLimit::default())), "output limit"),
            (asks(|spec| spec.leftovers = Some(LeftoversKind::Wait as i32)), "leftovers"),
            (asks(|spec| spec.capture = vec!["*".to_owned()]), "capture"),
        ] {
            assert_eq!(needs, Needs { version: 2, what: vec![name] });
            assert_eq!((needs.beyond(1).as_deref(), needs.beyond(2)), (Some(name), None));
        }
    }

    #[test]
    fn a_spec_that_needs_a_later_version_is_refused_with_both_numbers() {
        let later = RunSpec { needs: Some(PROTOCOL_VERSION + 1), ..RunSpec::default() };
        let text = later.check_needs().unwrap_err().to_string();
        assert!(text.contains("protocol 3") && text.contains("speaks 2"), "{text}");
        assert_eq!(RunSpec { needs: Some(PROTOCOL_VERSION), ..later }.check_needs(), Ok(()));
    }
}
