//! `[files]` of the configuration: which store it is.

use crate::settings;
use anyhow::bail;
use std::path::{Path, PathBuf};

/// Where the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A folder. One below the data root is made; another one must be there, for it may be a mount.
    Folder { path: PathBuf, own: bool },
    /// A bucket.
    Bucket(Bucket),
}

/// A bucket, and how to reach it. No secret is in here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    pub(crate) name: String,
    /// Before every key, without slashes at its ends; may be empty.
    pub(crate) prefix: String,
    /// Of another provider than Amazon.
    pub(crate) endpoint: Option<String>,
    pub(crate) region: String,
    /// The file with the key and its secret; the environment has them if absent.
    pub(crate) credentials_file: Option<PathBuf>,
}

/// The region of those who do not say one.
const REGION_DEFAULT: &str = "us-east-1";

impl Place {
    /// Reads the settings; `None`: there is no store, files stay with their agents.
    pub(crate) fn of(settings: &settings::Files, data_root: &Path) -> anyhow::Result<Option<Place>> {
        let url = settings.url.as_str();
        if url.is_empty() {
            return Ok(None);
        }
        if let Some(path) = url.strip_prefix("file:") {
            return folder(url, path, data_root).map(Some);
        }
        let Some(rest) = url.strip_prefix("s3://") else {
            bail!(
                "[files] url \"{}…\" is of no known kind; write \"file:files\", \"file:///mnt/share/files\", \"s3://bucket/prefix\" or \"\" for no store",
                url.split_once(':').map_or("", |(scheme, _)| scheme)
            );
        };
        if !cfg!(feature = "s3") {
            bail!("[files] url: this program was built without S3 (its cargo feature \"s3\"); use a folder");
        }
        bucket(rest, settings, data_root).map(|bucket| Some(Place::Bucket(bucket)))
    }

    /// Its address, for people and for the record: which store this is.
    pub(crate) fn url(&self) -> String {
        match self {
            Place::Folder { path, .. } => format!("file://{}", path.display()),
            Place::Bucket(bucket) => {
                let slash = if bucket.prefix.is_empty() { "" } else { "/" };
                let at = bucket.endpoint.as_ref().map(|endpoint| format!(" at {endpoint}"));
                format!("s3://{}{slash}{}{}", bucket.name, bucket.prefix, at.unwrap_or_default())
            }
        }
    }
}

fn folder(url: &str, path: &str, data_root: &Path) -> anyhow::Result<Place> {
    let path = match path.strip_prefix("//") {
        Some(rest) if rest.starts_with('/') => rest,
        Some(_) => {
            bail!("[files] url \"{url}\": a host has no place there; write \"file:///mnt/share/files\"")
        }
        None => path,
    };
    let plain = Path::new(path).components().all(|part| part != std::path::Component::ParentDir);
    if path.is_empty() || !plain {
        bail!("[files] url \"{url}\" names no folder; write \"file:files\" or \"file:///mnt/share/files\"");
    }
    let path = config::resolve(data_root, Path::new(path));
    if path == data_root || data_root.starts_with(&path) {
        bail!("[files] url \"{url}\": the data root is in that folder; give the files one of their own");
    }
    let own = path.starts_with(data_root);
    Ok(Place::Folder { path, own })
}

/// A bucket's name has letters, digits, dots and hyphens; so nothing in it can be a password.
fn bucket(rest: &str, settings: &settings::Files, data_root: &Path) -> anyhow::Result<Bucket> {
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    if name.is_empty() || !name.chars().all(is_name) {
        bail!(
            "[files] url: \"s3://BUCKET/PREFIX\" is expected; key and secret belong into credentials_file or the environment"
        );
    }
    let prefix = prefix.trim_matches('/').to_owned();
    if prefix.split('/').any(|part| matches!(part, "." | "..") || part.contains(['?', '#', '@'])) {
        bail!("[files] url: the part behind the bucket is no plain prefix");
    }
    if let Some(endpoint) = &settings.endpoint {
        let host = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
        let host = host.map(|host| host.trim_end_matches('/'));
        if !host.is_some_and(|host| !host.is_empty() && !host.contains(['@', '/', '?', '#'])) {
            bail!("[files] endpoint must be https://HOST or https://HOST:PORT");
        }
    }
    let endpoint = settings.endpoint.as_ref().map(|endpoint| endpoint.trim_end_matches('/').to_owned());
    let region = settings.region.clone().unwrap_or_else(|| REGION_DEFAULT.to_owned());
    let credentials_file = settings.credentials_file.as_deref().map(|path| config::resolve(data_root, path));
    Ok(Bucket { name: name.to_owned(), prefix, endpoint, region, credentials_file })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str, endpoint: Option<&str>) -> anyhow::Result<Option<Place>> {
        let settings = settings::Files {
            url: url.to_owned(),
            endpoint: endpoint.map(str::to_owned),
            ..settings::Files::default()
        };
        Place::of(&settings, Path::new("/d"))
    }

    #[test]
    fn a_relative_folder_lies_in_the_data_root_and_another_one_is_somebody_elses() {
        for (url, path, own) in [
            ("file:files", "/d/files", true),
            ("file:/mnt/x", "/mnt/x", false),
            ("file:///mnt/x", "/mnt/x", false),
            ("file:///d/files/deep", "/d/files/deep", true),
        ] {
            assert_eq!(of(url, None).unwrap(), Some(Place::Folder { path: path.into(), own }), "{url}");
        }
        assert_eq!(of("", None).unwrap(), None);
        assert_eq!(of("file:files", None).unwrap().unwrap().url(), "file:///d/files");
    }

    #[cfg(feature = "s3")]
    #[test]
    fn a_bucket_has_a_prefix_and_an_address_without_secrets() {
        let place = of("s3://my.bucket/a/b/", Some("http://127.0.0.1:9000/")).unwrap().unwrap();
        assert_eq!(place.url(), "s3://my.bucket/a/b at http://127.0.0.1:9000");
        assert_eq!(of("s3://b", None).unwrap().unwrap().url(), "s3://b");
    }

    #[test]
    fn what_names_no_store_is_refused_without_telling_a_secret() {
        for (url, endpoint) in [
            ("ftp://u:hush@h/x", None),
            ("hush", None),
            ("file:", None),
            ("file://host/hush", None),
            ("file:a/../../x", None),
            ("file:///", None),
            ("file:///d", None),
            ("file:.", None),
            ("s3://", None),
            ("s3://key:hush@bucket/x", None),
            ("s3://b/x?secret=hush", None),
            ("s3://b/x", Some("https://key:hush@h")),
            ("s3://b/x", Some("h:9000")),
        ] {
            let text = of(url, endpoint).map(|place| format!("{place:?}")).unwrap_err().to_string();
            let is_path = url.starts_with("file:") || url == "hush";
            assert!(text.contains("[files]") && (is_path || !text.contains("hush")), "{url}: {text}");
        }
    }
}
