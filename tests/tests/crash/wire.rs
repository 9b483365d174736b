//! Peers that talk nonsense, or say the same twice.

use crate::oracle::exactly_seven;
use anyhow::Result;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use tests::{Dialling, Random, on_site, wait_until};

#[test]
fn garbage_on_every_port_harms_nobody() {
    on_site(|site| {
        site.add_agent("host2", Dialling::Out)?;
        let mut random = Random::from_seed();
        let listening = site.agents[1].listen_address().map(str::to_owned);
        let ports = [site.server.agents_address(), site.server.http_address()].map(str::to_owned);
        let mut open = Vec::new();
        for address in ports.into_iter().chain(listening) {
            for round in 0..20 {
                open.push(garbage(&address, round, &mut random)?);
            }
        }
        let ids = site.client().submit_batch(&vec![site.gated()?; 10])?;
        site.open_gate()?;
        for id in ids {
            exactly_seven(site, id)?;
        }
        for stream in open {
            drop(stream);
        }
        assert!(site.server.ended()?.is_none(), "the server lives");
        let agent = site.client().agent("host2")?;
        assert!(agent.connected);
        Ok(())
    });
}

/// A connection over which something senseless went. It stays open.
fn garbage(address: &str, round: u64, random: &mut Random) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    let length = [0, 1, 5, 100, 4_000, 100_000][usize::try_from(round % 6)?];
    let mut bytes: Vec<u8> = (0..length).map(|_| random.word() as u8).collect();
    match round % 3 {
        0 => {}
        // The head of a TLS record that promises much, and of a request that never ends.
        1 => bytes.splice(0..bytes.len().min(5), [22, 3, 3, 0x40, 0]).for_each(drop),
        _ => bytes.splice(0..bytes.len().min(16), *b"POST / HTTP/1.1\r").for_each(drop),
    }
    // The other side may close at once: that is its right.
    let _ = stream.write_all(&bytes);
    Ok(stream)
}

#[test]
fn a_peer_that_says_nothing_is_shown_the_door() {
    on_site(|site| {
        let mut silent = TcpStream::connect(site.server.agents_address())?;
        silent.set_read_timeout(Some(Duration::from_millis(50)))?;
        wait_until("the server to hang up", || Ok(matches!(silent.read(&mut [0u8; 16]), Ok(0))))?;
        wait_until("a trace line", || Ok(site.server.trace().contains("refused")))
    });
}
