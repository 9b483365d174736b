//! A network that misbehaves as it is told, for the machines that have no other: it stands between two ends and forwards bytes, late, slowly, in
//! part, or not at all. One thread for each direction of each connection.

use anyhow::{Context, Result};
use socket2::SockRef;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a thread takes at once.
const PIECE_BYTES: usize = 4096;
/// How often a thread looks whether something changed.
const LOOK: Duration = Duration::from_millis(10);
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// What becomes of the bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// They arrive.
    Through,
    /// They are taken and arrive nowhere.
    Swallowed,
    /// They are not taken.
    Stalled,
}

/// How the network is now, for all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// From whoever dialled.
    pub there: Flow,
    /// To whoever dialled.
    pub back: Flow,
    /// Each piece waits so long.
    pub delay: Duration,
    /// So much goes through in a second, in each direction.
    pub bytes_per_second: Option<u64>,
    /// New connections end at once.
    pub closed: bool,
}

/// Everything arrives.
impl Default for Weather {
    fn default() -> Weather {
        let (there, back, delay) = (Flow::Through, Flow::Through, Duration::ZERO);
        Weather { there, back, delay, bytes_per_second: None, closed: false }
    }
}

/// How a connection ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As if the other end had closed.
    Close,
    /// By a reset.
    Reset,
    /// Both ends hear nothing any more.
    Silence,
}

/// What is to become of one connection: after so many bytes of both directions, wherever in a frame that is, or at the latest after so long, it
/// ends like this.
#[derive(Clone, Copy, Debug)]
pub struct Fate {
    /// Bytes of both directions together that still arrive.
    pub bytes: u64,
    /// The longest that it lives.
    pub longest: Duration,
    /// Then.
    pub ending: Ending,
}

/// Chooses the fate of the next connection; `None`: it lives.
type Choose = dyn FnMut() -> Option<Fate> + Send;

/// The proxy. Ends, with all connections, when it is dropped.
pub struct Proxy {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    target: String,
    weather: Mutex<Weather>,
    choose: Mutex<Box<Choose>>,
    over: AtomicBool,
    /// Connections that were accepted.
    accepted: AtomicU64,
    /// Connections that met their fate.
    ended: AtomicU64,
    /// All connections before this one are ended.
    cut_below: AtomicU64,
}

/// One connection.
struct Pair {
    number: u64,
    fate: Option<Fate>,
    began: Instant,
    met: AtomicBool,
    passed: AtomicU64,
    over: AtomicBool,
    silent: AtomicBool,
    dialler: TcpStream,
    target: TcpStream,
}

impl Proxy {
    /// In front of this address, on a free port.
    pub fn start(target: &str, choose: impl FnMut() -> Option<Fate> + Send + 'static) -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no port for a proxy")?;
        let address = listener.local_addr()?.to_string();
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            weather: Mutex::default(),
            choose: Mutex::new(Box::new(choose)),
            over: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            cut_below: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accepting.accept(&listener));
        Ok(Proxy { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Changes the weather, for the connections that there are too.
    pub fn set(&self, weather: Weather) {
        *lock(&self.shared.weather) = weather;
    }

    /// Ends every connection that there is now by a reset.
    pub fn cut_all(&self) {
        self.shared.cut_below.store(self.shared.accepted.load(Ordering::SeqCst) + 1, Ordering::SeqCst);
    }

    /// From now on every connection lives.
    pub fn calm(&self) {
        *lock(&self.shared.choose) = Box::new(|| None);
        self.set(Weather::default());
    }

    /// How many connections were accepted, and how many of them met their fate.
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.accepted.load(Ordering::SeqCst), self.shared.ended.load(Ordering::SeqCst))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while !self.over.load(Ordering::SeqCst) {
            match listener.accept() {
                Ok((dialler, _)) if lock(&self.weather).closed => drop(dialler),
                // Whoever dialled sees an end at once, as from a host without such a port.
                Ok((dialler, _)) => drop(self.join(dialler)),
                Err(_) => std::thread::sleep(LOOK),
            }
        }
    }

    fn join(self: &Arc<Self>, dialler: TcpStream) -> Result<()> {
        let number = self.accepted.fetch_add(1, Ordering::SeqCst) + 1;
        let target = TcpStream::connect_timeout(&self.target.parse()?, CONNECT_MAX)?;
        for stream in [&dialler, &target] {
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(LOOK))?;
            stream.set_write_timeout(Some(LOOK))?;
            stream.set_nodelay(true)?;
        }
        let fate = (lock(&self.choose))();
        let pair = Arc::new(Pair {
            number,
            fate,
            began: Instant::now(),
            met: AtomicBool::new(false),
            passed: AtomicU64::new(0),
            over: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            dialler,
            target,
        });
        for there in [true, false] {
            let (shared, pair) = (Arc::clone(self), Arc::clone(&pair));
            std::thread::spawn(move || shared.forward(&pair, there));
        }
        Ok(())
    }

    /// One direction of one connection, until it ends.
    fn forward(&self, pair: &Pair, there: bool) {
        let (mut from, mut to) =
            if there { (&pair.dialler, &pair.target) } else { (&pair.target, &pair.dialler) };
        let mut piece = [0; PIECE_BYTES];
        while !self.is_over(pair) {
            let weather = *lock(&self.weather);
            let flow = if there { weather.there } else { weather.back };
            if flow == Flow::Stalled || pair.silent.load(Ordering::SeqCst) {
                std::thread::sleep(LOOK);
                continue;
            }
            let length = match from.read(&mut piece) {
                Ok(0) => {
                    // The other direction goes on; a close arrives only where bytes do.
                    if flow == Flow::Through {
                        let _ = to.shutdown(Shutdown::Write);
                    }
                    return;
                }
                Ok(length) => length,
                Err(e) if is_timeout(&e) => continue,
                Err(_) => return pair.end(Ending::Reset),
            };
            if flow == Flow::Swallowed {
                continue;
            }
            std::thread::sleep(weather.delay);
            if let Some(rate) = weather.bytes_per_second {
                std::thread::sleep(Duration::from_micros(length as u64 * 1_000_000 / rate.max(1)));
            }
            let (bytes, ends) = pair.share(&piece[..length]);
            if !self.write(pair, &mut to, bytes) {
                return pair.end(Ending::Reset);
            }
            if ends {
                self.meet_fate(pair);
            }
        }
    }

    /// Writes all of it; `false` if that cannot be.
    fn write(&self, pair: &Pair, to: &mut &TcpStream, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() && !self.is_over(pair) {
            match to.write(bytes) {
                Ok(length) => bytes = &bytes[length..],
                Err(e) if is_timeout(&e) => {}
                Err(_) => return false,
            }
        }
        bytes.is_empty()
    }

    fn is_over(&self, pair: &Pair) -> bool {
        if pair.number < self.cut_below.load(Ordering::SeqCst) && !pair.over.load(Ordering::SeqCst) {
            pair.end(Ending::Reset);
        }
        if pair.fate.is_some_and(|fate| pair.began.elapsed() >= fate.longest) {
            self.meet_fate(pair);
        }
        pair.over.load(Ordering::SeqCst) || self.over.load(Ordering::SeqCst)
    }

    fn meet_fate(&self, pair: &Pair) {
        if let Some(fate) = pair.fate.filter(|_| !pair.met.swap(true, Ordering::SeqCst)) {
            self.ended.fetch_add(1, Ordering::SeqCst);
            pair.end(fate.ending);
        }
    }
}

impl Pair {
    /// What of these bytes still arrives, and whether the connection ends behind them.
    fn share<'a>(&self, bytes: &'a [u8]) -> (&'a [u8], bool) {
        let before = self.passed.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        let Some(fate) = self.fate else { return (bytes, false) };
        let left = fate.bytes.saturating_sub(before);
        match bytes.get(..usize::try_from(left).unwrap_or(usize::MAX)) {
            Some(first) => (first, true),
            None => (bytes, false),
        }
    }

    fn end(&self, ending: Ending) {
        match ending {
            Ending::Close => {
                let _ = self.dialler.shutdown(Shutdown::Both); // it may be closed already
                let _ = self.target.shutdown(Shutdown::Both);
            }
            // Without a linger the kernel sends a reset as the last handle goes.
            Ending::Reset => {
                let _ = SockRef::from(&self.dialler).set_linger(Some(Duration::ZERO));
                let _ = SockRef::from(&self.target).set_linger(Some(Duration::ZERO));
            }
            Ending::Silence => return self.silent.store(true, Ordering::SeqCst),
        }
        self.over.store(true, Ordering::SeqCst);
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
