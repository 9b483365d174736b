//! The network fails, and nothing is lost: jobs are executed once, and every outcome arrives when the network is back.
//!
//! What tests of single machines cannot do is done with network namespaces ([`wires`], root only; skipped elsewhere) and with a proxy of the tests'
//! own ([`weather`], [`reconnects`]). Both ways of dialling are tried.
//!
//! | what                                             | tried where                                                     |
//! |--------------------------------------------------|-----------------------------------------------------------------|
//! | cut without a word, one direction cut, unplugged, slow | [`wires`]                                                 |
//! | half-open: the host is gone, the server knows nothing | [`wires`]                                                  |
//! | another address behind the same name             | [`wires`]                                                       |
//! | delay, a slow network, bytes that are swallowed or not taken | [`weather`]                                         |
//! | truncation amid a frame, by an end, a reset or silence; 1,000 reconnects | [`reconnects`]                          |
//!
//! `LASTWORD_TEST_RECONNECTS`: how many connections are cut in [`reconnects`] (1,000). `LASTWORD_TEST_SEED` repeats the choices, though not the timing.
//!
//! How soon a dead link is noticed (20 s of silence) and how long pauses between attempts may get (60 s) is fixed in the product, so a test of a silent
//! network takes some half a minute; what fails at the same time is tried at the same time.

mod reconnects;
mod weather;
mod wires;

use anyhow::{Context, Result};
use tests::{Dialling, Fate, Proxy, Site};

/// Adds an agent whose connections go through a proxy.
fn add_behind_proxy(
    site: &mut Site,
    name: &str,
    dialling: Dialling,
    choose: impl FnMut() -> Option<Fate> + Send + 'static,
) -> Result<Proxy> {
    let mut agent = site.prepare_agent(name, dialling)?;
    let proxy = match dialling {
        Dialling::In => {
            let proxy = Proxy::start(site.server.agents_address(), choose)?;
            site.introduce(&agent)?;
            agent.set_address(dialling, proxy.address());
            agent.start()?;
            proxy
        }
        Dialling::Out => {
            agent.start()?;
            let proxy = Proxy::start(agent.listen_address().context("it listens")?, choose)?;
            site.introduce_at(&agent, Some(proxy.address()))?;
            proxy
        }
    };
    site.agents.push(agent);
    Ok(proxy)
}
