//! The steps of a child that can fail, as a number over the gate and as words for people.

use super::attributes;

/// A step's number.
pub(super) type Stage = u8;

pub(super) const SESSION: Stage = 0;
pub(super) const DIRECTORY: Stage = 1;
pub(super) const STDIO: Stage = 2;
pub(super) const EXECUTE: Stage = 3;
pub(super) const NICE: Stage = 4;
pub(super) const GROUPS: Stage = 5;
pub(super) const USER: Stage = 6;
pub(super) const CAPABILITIES: Stage = 7;
/// The first limit; the others follow in the order of their table.
pub(super) const LIMITS: Stage = 32;

/// The stage in which the working directory could not be entered.
pub const STAGE_NAME_DIRECTORY: &str = "change to the working directory";

/// What was tried.
pub(super) fn name(stage: Stage) -> &'static str {
    match stage {
        SESSION => "begin a new session",
        DIRECTORY => STAGE_NAME_DIRECTORY,
        STDIO => "set up standard input, output and error",
        EXECUTE => "execute",
        NICE => "set the niceness",
        GROUPS => "take on the user's groups",
        USER => "become the user",
        CAPABILITIES => "give up all capabilities",
        limit => attributes::limit_stage_name(limit.wrapping_sub(LIMITS)).unwrap_or("set up the child"),
    }
}
