//! What an agent's frames say, as inputs of the engine.

use crate::{FactIn, Input};
use protocol::Malformed;
use protocol::convert::{bad_field, run_id};
use protocol::message::{Facts, RefusalKind, Refused, RunFact};

/// The longest text of an agent that is kept, characters.
const TEXT_CHARS_MAX: usize = 500;

/// The messages of a frame, in the order of the wire.
///
/// # Errors
/// One that says not of which run it is, or has no number.
pub fn facts(facts: Facts) -> Result<Vec<FactIn>, Malformed> {
    let read = |fact: RunFact| {
        let run = run_id("RunFact", &fact.run_id)?;
        let seq = fact.seq.filter(|seq| *seq > 0).ok_or(bad_field("RunFact", "seq"))?;
        Ok(FactIn::new(run, seq, fact.fact))
    };
    facts.facts.into_iter().map(read).collect()
}

/// A run was not taken.
///
/// # Errors
/// It does not say which.
pub fn refused(agent: String, session: u64, refused: &Refused) -> Result<Input, Malformed> {
    let run = run_id("Refused", &refused.run_id)?;
    let kind =
        refused.kind.and_then(|kind| RefusalKind::try_from(kind).ok()).unwrap_or(RefusalKind::Unspecified);
    Ok(Input::Refused { agent, session, run, kind, reason: for_people(&refused.reason) })
}

/// A text of an agent as it is kept and shown: of limited length, on one line.
pub fn for_people(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_CHARS_MAX).collect()
}
