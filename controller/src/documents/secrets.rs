//! Secrets as Kubernetes writes them. What is wrong with one is said without a word of what it holds, so that serde, which quotes what it
//! does not like, reads none of its values.

use k8s_openapi::ByteString;
use serde_json::Value as Json;

use crate::api::Invalid;
use crate::cluster::Secret;

/// The name and the values of a `v1` Secret, or the fields at fault. Namespaces are not told apart: there is one that weftd reads
/// Secrets of.
pub(super) fn named(json: &Json) -> Result<(String, Secret), Vec<(String, Invalid)>> {
    let mut faults = Vec::new();
    let mut secret = Secret::default();
    // As the API server does it: stringData is written over data.
    for (field, read) in [("data", decoded as fn(&str) -> Option<Vec<u8>>), ("stringData", plain)] {
        let values = match json.get(field) {
            None | Some(Json::Null) => continue,
            Some(Json::Object(values)) => values,
            Some(_) => {
                faults.push((
                    field.to_owned(),
                    Invalid::new(format!("{field} is not a mapping"), "write key: value"),
                ));
                continue;
            }
        };
        for (key, value) in values {
            match value.as_str().and_then(read) {
                Some(value) => drop(secret.values.insert(key.clone(), value)),
                None => faults.push((format!("{field}.{key}"), unfit(field))),
            }
        }
    }
    let name = json.pointer("/metadata/name").and_then(Json::as_str);
    let Some(name) = name else {
        faults
            .push(("metadata.name".into(), Invalid::new("the name is missing", "write metadata: {name: …}")));
        return Err(faults);
    };
    if faults.is_empty() { Ok((name.to_owned(), secret)) } else { Err(faults) }
}

fn unfit(field: &str) -> Invalid {
    match field {
        "data" => Invalid::new("the value is not base64", "write it in base64, or as it is under stringData"),
        _ => Invalid::new("the value is not text", "write it in quotes"),
    }
}

fn plain(text: &str) -> Option<Vec<u8>> {
    Some(text.as_bytes().to_vec())
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    serde_json::from_value::<ByteString>(text.into()).ok().map(|bytes| bytes.0)
}
