//! The key of a bucket and its secret: from a file as Amazon's tools write it, or from the environment. Read anew whenever the store is opened; in no
//! setting, and in nothing that is printed.

use super::store::StoreError;
use link::{Secret, SecretError};
use std::path::Path;

/// What signs the requests.
pub(super) struct Credentials {
    pub(super) key: String,
    pub(super) secret: String,
    /// Of a session that ends.
    pub(super) token: Option<String>,
}

impl Credentials {
    /// From the file if there is one to be read, else from the environment.
    pub(super) fn load(file: Option<&Path>) -> Result<Credentials, StoreError> {
        let Some(path) = file else { return Credentials::of_environment(|name| std::env::var(name).ok()) };
        let text = Secret::load(path).map_err(|e| match e {
            SecretError::Io { source, .. } => {
                StoreError::Away(format!("the credentials file {} cannot be read: {source}", path.display()))
            }
            refused @ (SecretError::SymbolicLink { .. }
            | SecretError::NotAFile { .. }
            | SecretError::Mode { .. }
            | SecretError::Owner { .. }
            | SecretError::TooShort { .. }
            | SecretError::TooLong) => {
                StoreError::Away(refused.to_string().replace("the secret file", "the credentials file"))
            }
        })?;
        Credentials::read(&String::from_utf8_lossy(text.as_ref())).ok_or_else(|| {
            StoreError::Away(format!(
                "the credentials file {} lacks aws_access_key_id = … or aws_secret_access_key = …",
                path.display()
            ))
        })
    }

    fn of_environment(get: impl Fn(&str) -> Option<String>) -> Result<Credentials, StoreError> {
        match (get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY")) {
            (Some(key), Some(secret)) => Ok(Credentials { key, secret, token: get("AWS_SESSION_TOKEN") }),
            (None, _) | (_, None) => Err(StoreError::Away(
                "there are no credentials: set [files] credentials_file, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the server's environment"
                    .to_owned(),
            )),
        }
    }

    /// The profile `default`, or what stands before any.
    fn read(text: &str) -> Option<Credentials> {
        let mut of_ours = true;
        let (mut key, mut secret, mut token) = (None, None, None);
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                of_ours = line == "[default]";
            }
            let Some((name, value)) = line.split_once('=').filter(|_| of_ours && !line.starts_with('#'))
            else {
                continue;
            };
            let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
            match name.trim() {
                "aws_access_key_id" => key = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
        Some(Credentials { key: key?, secret: secret?, token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const TEXT: &str = "# ours\n[other]\naws_access_key_id = no\n[default]\naws_access_key_id = AKIA\naws_secret_access_key=s=/+x\n";

    #[test]
    fn the_default_profile_of_a_file_is_taken_and_only_if_nobody_else_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        std::fs::write(&path, TEXT).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let refused = Credentials::load(Some(&path)).err().unwrap().to_string();
        assert!(refused.contains("the credentials file") && refused.contains("chmod 600"), "{refused}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let Credentials { key, secret, token } = Credentials::load(Some(&path)).unwrap();
        assert_eq!((key.as_str(), secret.as_str(), token), ("AKIA", "s=/+x", None));
    }

    #[test]
    fn without_a_file_the_environment_has_both_or_it_is_said_what_is_missing() {
        let both = |name: &str| Some(name.to_lowercase());
        let found = Credentials::of_environment(both).unwrap();
        assert_eq!(
            (found.key.as_str(), found.token.as_deref()),
            ("aws_access_key_id", Some("aws_session_token"))
        );
        let one = |name: &str| (name == "AWS_ACCESS_KEY_ID").then(String::new);
        let missing = Credentials::of_environment(one).err().unwrap().to_string();
        assert!(missing.contains("credentials_file"), "{missing}");
        assert!(Credentials::load(Some(Path::new("/nowhere/x"))).is_err());
        assert!(Credentials::read("[default]\naws_access_key_id = AKIA\n").is_none());
    }
}
