//! The page: from tallies to text and HTML. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;
use tally::{End, Line, Part};

/// Where and on what it was tried.
#[derive(Clone, Debug)]
pub(super) struct Circumstances {
    pub(super) length: String,
    pub(super) version: String,
    pub(super) commit: String,
    pub(super) at: String,
    pub(super) host: String,
    /// By whom: what only root may, nobody else tries.
    pub(super) user: String,
    pub(super) system: String,
    pub(super) processors: usize,
    pub(super) file_system: String,
}

/// What was tried.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    /// The chapters, in their order.
    pub(super) parts: Vec<Part>,
    pub(super) lines: Vec<Line>,
    /// Some test failed, also one that left no tally.
    pub(super) tests_failed: bool,
    pub(super) took_s: u64,
}

/// What became of a chapter's promises here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// All of its tests were made, and nothing was found.
    Kept,
    /// Nothing was found in those that could be made here.
    KeptInPart,
    /// None could be made here.
    NotTried,
    /// None said anything.
    Missing,
    Broken,
}

/// One chapter.
struct Chapter<'a> {
    part: Part,
    lines: Vec<&'a Line>,
    totals: BTreeMap<&'a str, u64>,
}

impl Proof {
    /// Nothing was lost in what could be tried, and of every part something was tried or said to be impossible here.
    pub(super) fn holds(&self) -> bool {
        !self.tests_failed
            && self.broken() == 0
            && self.chapters().iter().all(|chapter| !chapter.lines.is_empty())
    }

    fn broken(&self) -> usize {
        self.lines.iter().filter(|line| line.end == End::Failed).count()
    }

    fn chapters(&self) -> Vec<Chapter<'_>> {
        let chapter = |part: &Part| {
            let lines: Vec<&Line> = self.lines.iter().filter(|line| line.part == *part).collect();
            let mut totals = BTreeMap::new();
            for (what, count) in lines.iter().flat_map(|line| &line.counts) {
                *totals.entry(what.as_str()).or_insert(0) += count;
            }
            Chapter { part: *part, lines, totals }
        };
        self.parts.iter().map(chapter).collect()
    }

    fn verdict(&self) -> String {
        let untried = self.untried();
        match (self.holds(), self.broken()) {
            (true, _) if untried.is_empty() => "Nothing was lost, and nothing was executed twice.".to_owned(),
            (true, _) => {
                format!(
                    "In what could be tried here nothing was lost, and nothing was executed twice.{untried}"
                )
            }
            (false, 0) => format!("NOT PROVEN.{}{untried}", self.unknown()),
            (false, 1) => format!("BROKEN: one test found a promise broken, or could not go on.{untried}"),
            (false, n) => format!("BROKEN: {n} tests found a promise broken, or could not go on.{untried}"),
        }
    }

    /// What this machine did not let us try, if there is anything.
    fn untried(&self) -> String {
        let not_at_all = self.named(|chapter| chapter.verdict() == Verdict::NotTried);
        let in_part = self.named(|chapter| chapter.verdict() != Verdict::NotTried && chapter.skipped() > 0);
        said("NOT TRIED on this machine", &not_at_all) + &said("Tried only in part", &in_part)
    }

    /// Why it is no proof though no promise was found broken.
    fn unknown(&self) -> String {
        let failed =
            if self.tests_failed { " A test failed without an account of what it tried." } else { "" };
        let missing = self.named(|chapter| chapter.verdict() == Verdict::Missing);
        failed.to_owned() + &said("There is no account of", &missing)
    }

    fn named(&self, wanted: fn(&Chapter<'_>) -> bool) -> String {
        let chapters = self.chapters();
        let wanted = chapters.iter().filter(|chapter| wanted(chapter));
        wanted.map(|chapter| title(chapter.part).0).collect::<Vec<_>>().join(", ")
    }
}

fn said(text: &str, names: &str) -> String {
    if names.is_empty() { String::new() } else { format!(" {text}: {names}.") }
}

impl Chapter<'_> {
    fn verdict(&self) -> Verdict {
        if self.lines.is_empty() {
            Verdict::Missing
        } else if self.lines.iter().any(|line| line.end == End::Failed) {
            Verdict::Broken
        } else if self.skipped() == self.lines.len() {
            Verdict::NotTried
        } else if self.skipped() > 0 {
            Verdict::KeptInPart
        } else {
            Verdict::Kept
        }
    }

    fn skipped(&self) -> usize {
        self.lines.iter().filter(|line| matches!(line.end, End::Skipped(_))).count()
    }

    /// In words.
    fn says(&self) -> String {
        match self.verdict() {
            Verdict::Kept => "kept".to_owned(),
            Verdict::KeptInPart => {
                format!("kept in what was tried; {} of {} not tried here", self.skipped(), self.lines.len())
            }
            Verdict::NotTried => "not tried here".to_owned(),
            Verdict::Missing => "NO ACCOUNT".to_owned(),
            Verdict::Broken => "BROKEN".to_owned(),
        }
    }
}

impl Verdict {
    /// How it is shown.
    fn class(self) -> &'static str {
        match self {
            Verdict::Kept => "kept",
            Verdict::KeptInPart | Verdict::NotTried => "untried",
            Verdict::Missing | Verdict::Broken => "broken",
        }
    }
}

fn title(part: Part) -> (&'static str, &'static str) {
    match part {
        Part::Simulation => (
            "Simulation",
            "The deciding code of many agents and a server over a simulated clock, network and disk: loss, duplicates, partitions, torn and \
             forgotten writes, failed syncs, crashes between any two steps.",
        ),
        Part::CrashPoints => (
            "Crash points",
            "Real processes that die by SIGKILL at named places: before and after every write that a promise rests on, one by one, two and three \
             at once; and writes that fail: no room, a disk error.",
        ),
        Part::RandomKills => (
            "Random kills",
            "kill -9 of job-processors, network-processors, monitors and the server under load. The jobs' own ledger is compared with the record.",
        ),
        Part::PowerLoss => (
            "Power loss",
            "The file systems of agent and server are shut down without a flush of their log, under load, and mounted again.",
        ),
        Part::FullDisks => {
            ("Full disks", "Small file systems of agent and server, filled under load and given room again.")
        }
        Part::Network => (
            "Network",
            "Agents in network namespaces of their own: cuts without a word, one-way cuts, slow and half-open connections, another address, reconnects.",
        ),
        Part::TimeAndIdentity => (
            "Time and identity",
            "Clocks that leap a year, process ids used again, another boot, processes that stand still, data roots that are copied or put back.",
        ),
        Part::Fuzzing => (
            "Bytes of strangers",
            "Inputs to everything that reads what others write: no panic, no hang, no memory beyond a limit.",
        ),
    }
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn outcome(line: &Line) -> String {
    match &line.end {
        End::Kept => "kept".to_owned(),
        End::Failed => "BROKEN".to_owned(),
        End::Skipped(why) => format!("not tried here: {why}"),
    }
}

fn counts(line: &Line) -> String {
    let counts: Vec<String> =
        line.counts.iter().map(|(what, count)| format!("{what}: {}", grouped(*count))).collect();
    let tried = !matches!(line.end, End::Skipped(_));
    let seed = line.seed.filter(|_| tried).map(|seed| format!("seed {seed}"));
    counts.into_iter().chain(seed).collect::<Vec<_>>().join(", ")
}

fn facts(circumstances: &Circumstances, proof: &Proof) -> [(&'static str, String); 8] {
    let Circumstances { length, version, commit, at, host, user, system, processors, file_system } =
        circumstances;
    let took = match proof.took_s.div_ceil(60) {
        0 | 1 => "a minute".to_owned(),
        minutes => format!("{minutes} minutes"),
    };
    [
        ("Program", format!("Lastword {version}, commit {commit} (debug builds, with named crash points)")),
        ("Begun", at.clone()),
        ("How much", format!("length {length}, {took}, {} tests with an account", proof.lines.len())),
        ("Machine", format!("{host}: {system}, {processors} processors; as {user}")),
        ("Scratch file system", file_system.clone()),
        ("To do it again", format!("cargo xtask prove --length {length}, in a checkout of that commit")),
        (
            "To repeat a test's choices",
            "LASTWORD_TEST_SEED=<its seed> in front, though not its timing; the simulation's seeds count from 0, and \
             SIM_SEED=<seed> repeats one wholly"
                .to_owned(),
        ),
        ("What is promised, and what is not", "docs/reliability.md of that commit".to_owned()),
    ]
}

/// The page as text.
pub(super) fn text(proof: &Proof, circumstances: &Circumstances) -> String {
    let mut text = format!("Lastword: what was tried so that nothing is lost\n\n{}\n\n", proof.verdict());
    for (name, value) in facts(circumstances, proof) {
        let _ = writeln!(text, "{name}: {value}");
    }
    for chapter in proof.chapters() {
        let (name, what) = title(chapter.part);
        let _ = writeln!(text, "\n{name}: {}\n  {what}", chapter.says());
        for (what, count) in &chapter.totals {
            let _ = writeln!(text, "  {:>12} {what}", grouped(*count));
        }
        for line in &chapter.lines {
            let _ = writeln!(text, "  - {} [{}] {}", line.promise, outcome(line), counts(line));
        }
    }
    text
}

/// The page as HTML, in one file.
pub(super) fn html(proof: &Proof, circumstances: &Circumstances) -> String {
    let mut page = String::from(HEAD);
    let class = match (proof.holds(), proof.untried().is_empty()) {
        (true, true) => Verdict::Kept,
        (true, false) => Verdict::KeptInPart,
        (false, _) => Verdict::Broken,
    }
    .class();
    let _ = writeln!(page, "<p class=\"verdict {class}\">{}</p>\n<dl>", escaped(&proof.verdict()));
    for (name, value) in facts(circumstances, proof) {
        let _ = writeln!(page, "<dt>{name}</dt><dd>{}</dd>", escaped(&value));
    }
    page.push_str("</dl>\n");
    for chapter in proof.chapters() {
        let (name, what) = title(chapter.part);
        let (class, says) = (chapter.verdict().class(), chapter.says());
        let _ = writeln!(page, "<h2>{name} <span class=\"{class}\">{says}</span></h2>\n<p>{what}</p>");
        totals(&mut page, &chapter);
        tests(&mut page, &chapter);
    }
    page.push_str("</main>\n</html>\n");
    page
}

fn totals(page: &mut String, chapter: &Chapter<'_>) {
    if chapter.totals.is_empty() {
        return;
    }
    page.push_str("<ul class=\"totals\">\n");
    for (what, count) in &chapter.totals {
        let _ = writeln!(page, "<li><b>{}</b> {}</li>", grouped(*count), escaped(what));
    }
    page.push_str("</ul>\n");
}

fn tests(page: &mut String, chapter: &Chapter<'_>) {
    if chapter.lines.is_empty() {
        return;
    }
    page.push_str(
        "<table>\n<thead><tr><th>Promise</th><th>What was tried</th><th class=\"number\">Seconds</th><th>Result</th></tr></thead>\n",
    );
    for line in &chapter.lines {
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td class=\"number\">{}</td><td class=\"{}\">{}</td></tr>",
            escaped(&line.promise),
            escaped(&counts(line)),
            grouped(line.took_ms.div_ceil(1_000)),
            match line.end {
                End::Kept => Verdict::Kept,
                End::Skipped(_) => Verdict::NotTried,
                End::Failed => Verdict::Broken,
            }
            .class(),
            escaped(&outcome(line))
        );
    }
    page.push_str("</table>\n");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const HEAD: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>Lastword: what was tried so that nothing is lost</title>
<style>
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0 }
main { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-top: 1px solid #8886; padding-top: 1rem }
h2 span { float: right; font-size: .95rem } .kept { color: #17803d } .untried { color: #8a5a00 } .broken { color: #c22 }
.verdict { font-size: 1.2rem; font-weight: 600 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem } dt { color: #777 } dd { margin: 0; overflow-wrap: anywhere }
ul.totals { display: flex; flex-wrap: wrap; gap: .3rem 1.5rem; list-style: none; padding: 0 }
table { border-collapse: collapse; table-layout: fixed; width: 100%; font-size: .9rem } th, td { text-align: left; vertical-align: top; padding: .25rem .6rem; border-bottom: 1px solid #8884; overflow-wrap: anywhere }
th { background: #8882; white-space: nowrap } th:nth-child(1), th:nth-child(2) { width: 35% } th:nth-child(3) { width: 5rem } th.number { text-align: right } .number { text-align: right }
@media (prefers-color-scheme: dark) { .kept { color: #5c8 } .untried { color: #db5 } .broken { color: #f77 } }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr } dd { margin-bottom: .5rem } table { table-layout: auto } }
@media print { main { max-width: none; margin: 0 } h2, h2 + p, ul.totals { break-after: avoid } tr, dl { break-inside: avoid } :root { font-size: 11px } }
</style>
<main>
<h1>What was tried so that nothing is lost</h1>
";

#[cfg(test)]
mod tests {
    use super::*;

    fn line(part: Part, end: End, count: u64) -> Line {
        let counts = BTreeMap::from([("jobs compared".to_owned(), count)]);
        Line { part, promise: "a <cut> loses nothing".into(), end, counts, seed: Some(7), took_ms: 1_001 }
    }

    fn proof(lines: Vec<Line>, tests_failed: bool) -> Proof {
        Proof { parts: vec![Part::Network, Part::PowerLoss], lines, tests_failed, took_s: 61 }
    }

    fn circumstances() -> Circumstances {
        Circumstances {
            length: "usual".into(),
            version: "1.2.3".into(),
            commit: "abc".into(),
            at: "today".into(),
            host: "box".into(),
            user: "root".into(),
            system: "Linux".into(),
            processors: 2,
            file_system: "ext4".into(),
        }
    }

    #[test]
    fn what_was_kept_is_counted_and_what_was_not_tried_is_named() {
        let skipped = End::Skipped("no loop devices".into());
        let proof = proof(
            vec![
                line(Part::Network, End::Kept, 1_200),
                line(Part::Network, End::Kept, 34),
                line(Part::PowerLoss, skipped, 0),
            ],
            false,
        );
        assert!(proof.holds());
        let text = text(&proof, &circumstances());
        assert!(
            text.contains("nothing was lost") && text.contains("NOT TRIED on this machine: Power loss."),
            "{text}"
        );
        assert!(
            text.contains("1,234 jobs compared") && text.contains("not tried here: no loop devices"),
            "{text}"
        );
        let html = html(&proof, &circumstances());
        assert!(html.contains("a &lt;cut&gt; loses nothing") && html.contains("<b>1,234</b>"), "{html}");
    }

    #[test]
    fn a_part_of_which_this_machine_allows_nothing_or_only_something_is_never_said_to_be_kept() {
        let skipped = |part| line(part, End::Skipped("no namespaces".into()), 0);
        let network = vec![line(Part::Network, End::Kept, 1), skipped(Part::Network)];
        let proof = proof([network, vec![skipped(Part::PowerLoss)]].concat(), false);
        let verdicts: Vec<Verdict> = proof.chapters().iter().map(Chapter::verdict).collect();
        assert_eq!(verdicts, [Verdict::KeptInPart, Verdict::NotTried]);
        let (text, html) = (text(&proof, &circumstances()), html(&proof, &circumstances()));
        for page in [&text, &html] {
            assert!(page.contains("In what could be tried here"), "{page}");
            assert!(
                page.contains("NOT TRIED on this machine: Power loss. Tried only in part: Network."),
                "{page}"
            );
            assert!(page.contains("kept in what was tried; 1 of 2 not tried here"), "{page}");
        }
        assert!(text.contains("\nPower loss: not tried here\n"), "{text}");
        assert!(html.contains("Power loss <span class=\"untried\">not tried here</span>"), "{html}");
        assert!(!html.contains("class=\"verdict kept\""), "{html}");
    }

    #[test]
    fn a_broken_promise_a_failed_test_and_a_missing_part_are_no_proof() {
        let kept = || vec![line(Part::Network, End::Kept, 1), line(Part::PowerLoss, End::Kept, 1)];
        assert!(proof(kept(), false).holds());
        assert!(!proof(kept(), true).holds());
        let missing = proof(vec![line(Part::Network, End::Kept, 1)], false);
        assert!(!missing.holds());
        assert!(text(&missing, &circumstances()).contains("NOT PROVEN. There is no account of: Power loss."));
        let broken = proof([kept(), vec![line(Part::Network, End::Failed, 1)]].concat(), false);
        assert!(!broken.holds());
        assert!(text(&broken, &circumstances()).contains("BROKEN: one test"));
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
