//! Every step that somebody in the model can take.

use crate::bounds::{Back, Rules, Second};
use crate::state::{Down, Host, Place, RUNS, SERVERS, State, Up};
use crate::{agent, host, server};

/// A step, by agent, server or run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "docs/model.md says for each which function of the code it is")]
pub enum Action {
    ServerStarts { server: usize },
    ServerDies { server: usize },
    SecondServerStarts,
    BackupIsMade,
    DatabaseGoesBack,
    Place { server: usize, agent: usize },
    ServerHears { server: usize, agent: usize },
    Commit { server: usize },
    Adopt { server: usize, run: usize },
    Told { server: usize, agent: usize },

    Link { agent: usize, server: usize },
    LinkBreaks { agent: usize, server: usize },
    FrameIsRepeated { agent: usize, server: usize, up: bool },

    NetworkProcessorStarts { agent: usize },
    NetworkProcessorDies { agent: usize, saved: bool },
    AgentHears { agent: usize, server: usize },
    RaiseFence { agent: usize, server: usize },
    ResendSettled { agent: usize },

    OnHost { agent: usize, run: usize, step: Step },
    MonitorDies { agent: usize },
    PowerCut { agent: usize, kept: bool },
}

/// A step that concerns one run on one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "docs/model.md says for each which function of the code it is")]
pub enum Step {
    Prepare,
    SyncRuns,
    Launch,
    GiveUp,
    RecordInPlace { kernel_tells: bool },
    SendFacts,
    Settle,
    TakeLock,
    Fork,
    WriteStarted,
    SyncStarted,
    OpenGate,
    JobEnds,
    WriteEnded,
    GateCloses,
    SleeperWakes,
    MonitorRecords,
    JobProcessorDies,
}

/// The steps of which any number may be taken.
const STEPS: [Step; 18] = [
    Step::Prepare,
    Step::SyncRuns,
    Step::Launch,
    Step::GiveUp,
    Step::RecordInPlace { kernel_tells: true },
    Step::RecordInPlace { kernel_tells: false },
    Step::SendFacts,
    Step::Settle,
    Step::TakeLock,
    Step::Fork,
    Step::WriteStarted,
    Step::SyncStarted,
    Step::OpenGate,
    Step::JobEnds,
    Step::WriteEnded,
    Step::GateCloses,
    Step::SleeperWakes,
    Step::MonitorRecords,
];

/// What may be tried now; [`take`] refuses what cannot be.
pub(crate) fn all(state: &State, actions: &mut Vec<Action>) {
    let left = &state.left;
    let agents = 0..usize::from(left.agents);
    for server in (0..SERVERS).filter(|server| state.servers[*server].exists) {
        actions.push(Action::ServerStarts { server });
        if left.server_crashes > 0 {
            actions.push(Action::ServerDies { server });
        }
        actions.push(Action::Commit { server });
        actions.extend((0..RUNS).map(|run| Action::Adopt { server, run }));
        for agent in agents.clone() {
            actions.push(Action::Place { server, agent });
            actions.push(Action::Told { server, agent });
            of_link(state, agent, server, actions);
        }
    }
    if left.second != Second::Never {
        actions.push(Action::SecondServerStarts);
    }
    if left.back != Back::Never {
        actions.extend([Action::BackupIsMade, Action::DatabaseGoesBack]);
    }
    for agent in agents {
        of_agent(state, agent, actions);
        (0..usize::from(left.runs)).for_each(|run| of_run(state, agent, run, actions));
    }
}

fn of_link(state: &State, agent: usize, server: usize, actions: &mut Vec<Action>) {
    let left = &state.left;
    match &state.links[agent][server] {
        None if left.links > 0 => actions.push(Action::Link { agent, server }),
        None => {}
        Some(_) => {
            let hears = [
                Action::ServerHears { server, agent },
                Action::AgentHears { agent, server },
                Action::RaiseFence { agent, server },
            ];
            actions.extend(hears);
            if left.breaks > 0 {
                actions.push(Action::LinkBreaks { agent, server });
            }
            if left.repeats > 0 {
                actions.extend([true, false].map(|up| Action::FrameIsRepeated { agent, server, up }));
            }
        }
    }
}

fn of_agent(state: &State, agent: usize, actions: &mut Vec<Action>) {
    let left = &state.left;
    actions.push(Action::NetworkProcessorStarts { agent });
    actions.push(Action::ResendSettled { agent });
    if left.np_crashes > 0 {
        actions.extend([true, false].map(|saved| Action::NetworkProcessorDies { agent, saved }));
    }
    if left.monitor_crashes > 0 {
        actions.push(Action::MonitorDies { agent });
    }
    if left.power_cuts > 0 {
        actions.extend([true, false].map(|kept| Action::PowerCut { agent, kept }));
    }
}

fn of_run(state: &State, agent: usize, run: usize, actions: &mut Vec<Action>) {
    // A run that this host never heard of has no steps here.
    let known = state.agents[agent].np.as_ref().is_some_and(|np| np.runs[run].is_some());
    if known
        || state.agents[agent].disk[run].place != Place::Nowhere
        || state.agents[agent].hosts[run] != Host::NOTHING
    {
        actions.extend(STEPS.map(|step| Action::OnHost { agent, run, step }));
        if state.left.jp_crashes > 0 {
            actions.push(Action::OnHost { agent, run, step: Step::JobProcessorDies });
        }
    }
}

/// The state after the step; `None`: it cannot be taken.
pub(crate) fn take(before: &State, action: Action, rules: &Rules) -> Option<State> {
    let mut state = before.clone();
    let now = &mut state;
    let done = match action {
        Action::ServerStarts { server } => server::starts(now, server),
        Action::ServerDies { server } => spend(&mut now.left.server_crashes) && server::dies(now, server),
        Action::SecondServerStarts => match now.left.second {
            Second::Never => false,
            Second::TakesOver => server::takes_over(now),
            Second::Twin => server::twin_starts(now),
        },
        Action::BackupIsMade => server::backs_up(now),
        Action::DatabaseGoesBack => {
            let how = std::mem::replace(&mut now.left.back, Back::Never);
            server::goes_back(now, how)
        }
        Action::Place { server, agent } => server::places(now, server, agent, rules),
        Action::ServerHears { server, agent } => server::hears(now, server, agent, rules),
        Action::Commit { server } => server::commits(now, server),
        Action::Adopt { server, run } => server::adopts(now, server, run, rules),
        Action::Told { server, agent } => server::is_told(now, server, agent),
        Action::Link { agent, server } => spend(&mut now.left.links) && agent::links(now, agent, server),
        Action::LinkBreaks { agent, server } => {
            now.unlink(agent, server);
            spend(&mut now.left.breaks)
        }
        Action::FrameIsRepeated { agent, server, up } => {
            spend(&mut now.left.repeats) && is_repeated(now, agent, server, up)
        }
        Action::NetworkProcessorStarts { agent } => agent::starts(now, agent),
        Action::NetworkProcessorDies { agent, saved } => {
            spend(&mut now.left.np_crashes) && agent::dies(now, agent, saved)
        }
        Action::AgentHears { agent, server } => agent::hears(now, agent, server, rules),
        Action::RaiseFence { agent, server } => agent::raises_fence(now, agent, server, rules),
        Action::ResendSettled { agent } => agent::resends_settled(now, agent, rules),
        Action::MonitorDies { agent } => {
            spend(&mut now.left.monitor_crashes) && host::monitor_dies(now, agent)
        }
        Action::PowerCut { agent, kept } => {
            spend(&mut now.left.power_cuts) && host::power_cut(now, agent, kept)
        }
        Action::OnHost { agent, run, step } => take_on_host(now, agent, run, step, rules),
    };
    done.then_some(state)
}

fn take_on_host(now: &mut State, agent: usize, run: usize, step: Step, rules: &Rules) -> bool {
    match step {
        Step::Prepare => agent::prepares(now, agent, run),
        Step::SyncRuns => agent::syncs_runs(now, agent, run),
        Step::Launch => agent::launches(now, agent, run, rules),
        Step::GiveUp => agent::gives_up(now, agent, run),
        Step::RecordInPlace { kernel_tells } => agent::records_in_place(now, agent, run, kernel_tells),
        Step::SendFacts => agent::sends(now, agent, run, rules),
        Step::Settle => agent::settles(now, agent, run, rules),
        Step::TakeLock => host::takes_lock(now, agent, run, rules),
        Step::Fork => host::forks(now, agent, run, rules),
        Step::WriteStarted => host::writes_started(now, agent, run),
        Step::SyncStarted => host::syncs_started(now, agent, run),
        Step::OpenGate => host::opens_gate(now, agent, run, rules),
        Step::JobEnds => host::job_ends(now, agent, run),
        Step::WriteEnded => host::writes_ended(now, agent, run),
        Step::GateCloses => host::gate_closes(now, agent, run),
        Step::SleeperWakes => host::sleeper_wakes(now, agent, run),
        Step::MonitorRecords => host::monitor_records(now, agent, run),
        Step::JobProcessorDies => {
            spend(&mut now.left.jp_crashes) && host::job_processor_dies(now, agent, run)
        }
    }
}

/// The network says the first frame on its way a second time, behind the others. A hello, and the word that all is told, are said once a connection.
fn is_repeated(now: &mut State, agent: usize, server: usize, up: bool) -> bool {
    let Some(link) = &mut now.links[agent][server] else { return false };
    match (up, link.up.first(), link.down.first()) {
        (true, Some(frame @ Up::Facts { .. }), _) => link.up.push(*frame),
        (false, _, Some(frame @ (Down::Start { .. } | Down::Acks { .. }))) => link.down.push(*frame),
        (true, None | Some(Up::AgentHello { .. } | Up::NoRecord { .. } | Up::CaughtUp), _)
        | (false, _, None | Some(Down::ServerHello(_))) => return false,
    }
    true
}

/// One less of what may happen. `false`: none was left.
fn spend(left: &mut u8) -> bool {
    match left.checked_sub(1) {
        Some(less) => {
            *left = less;
            true
        }
        None => false,
    }
}
