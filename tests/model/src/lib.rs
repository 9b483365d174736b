//! The promises of the system as a model that is checked exhaustively, within bounds: every order of steps of server, agents, hosts and network, with
//! crashes between any two of them. `docs/model.md` says which step is which function of the code, and what is left out.
//!
//! A process may stand still for as long as it likes between any two steps, so pauses are in every model.

#![forbid(unsafe_code)]

mod action;
mod agent;
mod bounds;
mod host;
mod properties;
mod server;
pub mod state;

pub use action::{Action, Step};
pub use bounds::{Back, Bounds, Rules, Second};
pub use properties::{
    ACKED_CAN_COME, ACKED_IS_KEPT, AT_MOST_ONCE, COMPLETES, FINAL_STAYS, JOB_AT_MOST_ONCE, NEVER_INVENTED,
    NOTHING_LOST, OLDER_NOT_OBEYED, ORDERED_AGAIN, PLACED_AGAIN, Promise, SETTLED, TAKEN_OVER, UNKNOWN,
};
pub use state::{Outcome, State};

use stateright::{Model, Property};

/// A model: what may happen, and which protections are in force.
#[derive(Clone, Debug)]
pub struct World {
    /// How often what may happen.
    pub bounds: Bounds,
    /// The protections.
    pub rules: Rules,
    /// What is checked.
    pub promises: Vec<Promise>,
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(self.bounds)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        action::all(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        action::take(state, action, &self.rules)
    }

    fn properties(&self) -> Vec<Property<World>> {
        self.promises.iter().map(|promise| promise()).collect()
    }
}
