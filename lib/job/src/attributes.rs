//! What a job's process is given beside its command: file mode mask, niceness, resource limits, as people write them.

use crate::Size;
use std::fmt;
use std::str::FromStr;

/// The largest file mode mask.
pub const UMASK_MAX: u32 = 0o777;
/// The most favourable niceness.
pub const NICE_MIN: i32 = -20;
/// The least favourable niceness.
pub const NICE_MAX: i32 = 19;
/// The largest value of the limit `nice` (20 minus the niceness that it allows).
const LIMIT_NICE_MAX: u64 = 40;
/// The largest value of the limit `rtprio`.
const LIMIT_RTPRIO_MAX: u64 = 99;

/// A resource that the kernel limits for a process: those of Linux's `getrlimit(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// Address space, bytes.
    As,
    /// Core file, bytes.
    Core,
    /// CPU time, seconds.
    Cpu,
    /// Data segment, bytes.
    Data,
    /// Largest file that may be written, bytes.
    Fsize,
    /// File locks; without effect since Linux 2.4.25.
    Locks,
    /// Memory locked in RAM, bytes.
    Memlock,
    /// POSIX message queues of the user, bytes.
    Msgqueue,
    /// How far the niceness may be lowered: 20 minus the niceness.
    Nice,
    /// Open files.
    Nofile,
    /// Processes and threads of the user.
    Nproc,
    /// Resident set, bytes; without effect since Linux 2.4.30.
    Rss,
    /// Real-time priority.
    Rtprio,
    /// CPU time of a real-time process between two system calls that block, microseconds.
    Rttime,
    /// Signals of the user that are queued.
    Sigpending,
    /// Stack, bytes.
    Stack,
}

impl Resource {
    /// Every one, in the order of the names.
    pub const ALL: [Resource; 16] = [
        Resource::As,
        Resource::Core,
        Resource::Cpu,
        Resource::Data,
        Resource::Fsize,
        Resource::Locks,
        Resource::Memlock,
        Resource::Msgqueue,
        Resource::Nice,
        Resource::Nofile,
        Resource::Nproc,
        Resource::Rss,
        Resource::Rtprio,
        Resource::Rttime,
        Resource::Sigpending,
        Resource::Stack,
    ];

    /// Its name in `limits.conf(5)` and in `RLIMIT_…`, in small letters.
    pub fn name(self) -> &'static str {
        match self {
            Resource::As => "as",
            Resource::Core => "core",
            Resource::Cpu => "cpu",
            Resource::Data => "data",
            Resource::Fsize => "fsize",
            Resource::Locks => "locks",
            Resource::Memlock => "memlock",
            Resource::Msgqueue => "msgqueue",
            Resource::Nice => "nice",
            Resource::Nofile => "nofile",
            Resource::Nproc => "nproc",
            Resource::Rss => "rss",
            Resource::Rtprio => "rtprio",
            Resource::Rttime => "rttime",
            Resource::Sigpending => "sigpending",
            Resource::Stack => "stack",
        }
    }

    /// The one with that name.
    pub fn named(name: &str) -> Option<Resource> {
        Resource::ALL.into_iter().find(|resource| resource.name() == name)
    }

    fn value_max(self) -> u64 {
        match self {
            Resource::Nice => LIMIT_NICE_MAX,
            Resource::Rtprio => LIMIT_RTPRIO_MAX,
            Resource::As
            | Resource::Core
            | Resource::Cpu
            | Resource::Data
            | Resource::Fsize
            | Resource::Locks
            | Resource::Memlock
            | Resource::Msgqueue
            | Resource::Nofile
            | Resource::Nproc
            | Resource::Rss
            | Resource::Rttime
            | Resource::Sigpending
            | Resource::Stack => u64::MAX - 1, // the kernel's own word for "unlimited" is the largest number
        }
    }
}

/// A limit of a job's process. `None` as a value: unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Of what.
    pub resource: Resource,
    /// What holds, and may be raised by the process up to `hard`.
    pub soft: Option<u64>,
    /// What may only be lowered.
    pub hard: Option<u64>,
}

/// Why an attribute cannot be; the text names it and says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// No such limit.
    #[error("there is no limit \"{name}\"; there are: {}", Resource::ALL.map(Resource::name).join(", "))]
    NoSuchLimit {
        /// What was asked for.
        name: String,
    },
    /// Not a number and not `unlimited`.
    #[error(
        "limit {name}: \"{value}\" is no value; write SOFT or SOFT:HARD, each a number (512, 64K, 2G) or \"unlimited\""
    )]
    NoValue {
        /// Which limit.
        name: String,
        /// What was written.
        value: String,
    },
    /// The soft limit is beyond the hard one.
    #[error("limit {name}: the soft limit in \"{value}\" is beyond the hard one")]
    SoftBeyondHard {
        /// Which limit.
        name: String,
        /// What was written.
        value: String,
    },
    /// A number that this limit cannot have.
    #[error("limit {name}: \"{value}\" is out of its range, 0 to {max}")]
    OutOfRange {
        /// Which limit.
        name: String,
        /// What was written.
        value: String,
        /// The largest value.
        max: u64,
    },
    /// Not an octal number up to 777.
    #[error("umask: \"{0}\" is no mask; write an octal number from 000 to 777, as in 027")]
    Umask(String),
    /// Not a niceness.
    #[error("nice: {0} is out of its range, {NICE_MIN} to {NICE_MAX}")]
    Nice(i32),
}

impl Limit {
    /// Checks the numbers against each other and against the resource.
    pub fn new(resource: Resource, soft: Option<u64>, hard: Option<u64>) -> Result<Limit, AttributeError> {
        let limit = Limit { resource, soft, hard };
        let number = |value: Option<u64>| value.unwrap_or(u64::MAX);
        let (name, value, max) = (resource.name().to_owned(), limit.to_string(), resource.value_max());
        if [soft, hard].into_iter().flatten().any(|value| value > max) {
            return Err(AttributeError::OutOfRange { name, value, max });
        }
        if number(soft) > number(hard) {
            return Err(AttributeError::SoftBeyondHard { name, value });
        }
        Ok(limit)
    }

    /// Reads `SOFT` or `SOFT:HARD` for the limit of that name. One value is both, as with `ulimit`.
    pub fn read(name: &str, value: &str) -> Result<Limit, AttributeError> {
        let resource =
            Resource::named(name).ok_or_else(|| AttributeError::NoSuchLimit { name: name.to_owned() })?;
        let no_value = || AttributeError::NoValue { name: name.to_owned(), value: value.to_owned() };
        let (soft, hard) = value.split_once(':').unwrap_or((value, value));
        let (soft, hard) = (number(soft).ok_or_else(no_value)?, number(hard).ok_or_else(no_value)?);
        Limit::new(resource, soft, hard)
    }
}

/// `1024`, `64K`, `unlimited`; the inner `None` is unlimited.
fn number(text: &str) -> Option<Option<u64>> {
    if text == "unlimited" { Some(None) } else { Size::read(text).map(|size| Some(size.0)) }
}

/// The value as it is read: `SOFT:HARD`, or one number if both are the same.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: Option<u64>| value.map_or_else(|| "unlimited".to_owned(), |v| v.to_string());
        match self.soft == self.hard {
            true => f.write_str(&text(self.soft)),
            false => write!(f, "{}:{}", text(self.soft), text(self.hard)),
        }
    }
}

/// The permissions that new files of a job do not get; written in octal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Umask(pub u32);

impl FromStr for Umask {
    type Err = AttributeError;

    fn from_str(text: &str) -> Result<Umask, AttributeError> {
        let is_octal = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let mask = u32::from_str_radix(text, 8).ok().filter(|mask| is_octal && *mask <= UMASK_MAX);
        mask.map(Umask).ok_or_else(|| AttributeError::Umask(text.to_owned()))
    }
}

impl fmt::Display for Umask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03o}", self.0)
    }
}

/// Checks a niceness.
pub fn check_nice(nice: i32) -> Result<i32, AttributeError> {
    if (NICE_MIN..=NICE_MAX).contains(&nice) { Ok(nice) } else { Err(AttributeError::Nice(nice)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_people_write_them_and_shown_the_same() {
        for (name, value, soft, hard, shown) in [
            ("nofile", "1024", Some(1024), Some(1024), "1024"),
            ("nofile", "1024:4096", Some(1024), Some(4096), "1024:4096"),
            ("core", "0:unlimited", Some(0), None, "0:unlimited"),
            ("as", "2G", Some(2 << 30), Some(2 << 30), "2147483648"),
            ("stack", "8M:unlimited", Some(8 << 20), None, "8388608:unlimited"),
            ("cpu", "unlimited", None, None, "unlimited"),
        ] {
            let limit = Limit::read(name, value).unwrap();
            assert_eq!((limit.resource.name(), limit.soft, limit.hard), (name, soft, hard));
            assert_eq!(limit.to_string(), shown);
            assert_eq!(Limit::read(name, shown), Ok(limit));
        }
    }

    #[test]
    fn what_is_no_limit_says_why() {
        let said = |name: &str, value: &str| Limit::read(name, value).unwrap_err().to_string();
        assert!(said("files", "1").contains("there are: as, core, cpu"), "{}", said("files", "1"));
        assert!(said("nofile", "4096:1024").contains("beyond the hard"));
        assert!(said("nofile", "unlimited:1024").contains("beyond the hard"));
        assert!(said("rtprio", "100").contains("0 to 99"));
        for value in ["", "x", "-1", "+1", "1:2:3", "K", "99999999999999999999", "9999999999T", "1:"] {
            assert!(said("nofile", value).contains("is no value"), "{value}: {}", said("nofile", value));
        }
        assert!(said("as", "18446744073709551615").contains("out of its range"));
    }

    #[test]
    fn masks_are_octal_and_niceness_has_a_range() {
        assert_eq!("027".parse::<Umask>().unwrap(), Umask(0o27));
        assert_eq!(Umask(0o27).to_string(), "027");
        for text in ["", "8", "1000", "-1", "+7", "0o27", "x"] {
            assert!(text.parse::<Umask>().is_err(), "{text}");
        }
        assert_eq!((check_nice(-20), check_nice(19)), (Ok(-20), Ok(19)));
        assert!(check_nice(20).unwrap_err().to_string().contains("-20 to 19"));
    }
}
