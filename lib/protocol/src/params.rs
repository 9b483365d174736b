//! How a job finds its parameters: the environment variable of a name, the same for who submits and for who starts.

use std::collections::BTreeMap;

/// The longest name of a parameter.
const NAME_BYTES_MAX: usize = 100;

/// The environment variable of a parameter: `max-size` is `LASTWORD_PARAM_MAX_SIZE`.
pub fn variable(name: &str) -> String {
    let in_shell = |c: char| if matches!(c, '-' | '.') { '_' } else { c.to_ascii_uppercase() };
    format!("LASTWORD_PARAM_{}", name.chars().map(in_shell).collect::<String>())
}

/// Checks the names of a job's parameters; the error names what is wrong.
pub fn check<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut taken: BTreeMap<String, &str> = BTreeMap::new();
    for name in names {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(legal) {
            return Err(format!(
                "\"{name}\" cannot be the name of a parameter: 1 to {NAME_BYTES_MAX} letters, digits, underscores, hyphens and dots \
                 are allowed"
            ));
        }
        if let Some(other) = taken.insert(variable(name), name) {
            return Err(format!(
                "the parameters \"{other}\" and \"{name}\" are both {} in the job's environment; rename one of them",
                variable(name)
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_found_under_a_name_that_a_shell_can_say() {
        assert_eq!(variable("month"), "LASTWORD_PARAM_MONTH");
        assert_eq!(variable("max-size.kib"), "LASTWORD_PARAM_MAX_SIZE_KIB");
    }

    #[test]
    fn names_that_meet_in_one_variable_are_refused() {
        assert_eq!(check(["a", "b", "a_b"].into_iter()), Ok(()));
        for [one, other] in [["a", "A"], ["a-b", "a_b"], ["a.b", "A-B"]] {
            let error = check([one, other].into_iter()).unwrap_err();
            assert!(error.contains(one) && error.contains(other), "{error}");
        }
    }

    #[test]
    fn names_that_no_environment_can_have_are_refused() {
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for name in ["", "a b", "a=b", "ü", "a\0", &long] {
            assert!(check([name].into_iter()).is_err(), "{name}");
        }
    }
}
