//! What an admin applies: every object is of its kind to the last field, and every kustomization names what there is.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic fails the test, which is what it is for"
)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests");

/// Every YAML file below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    found.sort();
}

fn documents(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    let documents = serde_yaml::Deserializer::from_str(&text);
    documents.map(|document| serde::Deserialize::deserialize(document).unwrap()).collect()
}

/// What a type knows of an object is all of it.
fn is_whole<T: DeserializeOwned + Serialize>(object: &Value) {
    let read: T =
        serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object:#}"));
    let known = serde_json::to_value(read).unwrap();
    assert_within(object, &known, "");
}

fn assert_within(part: &Value, whole: &Value, path: &str) {
    match part {
        Value::Object(fields) => {
            for (key, value) in fields {
                assert_within(value, &whole[key], &format!("{path}.{key}"));
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                assert_within(item, &whole[index], &format!("{path}[{index}]"));
            }
        }
        _ => assert_eq!(part, whole, "{path} is no such field, or not of this form"),
    }
}

#[test]
fn every_object_is_of_its_kind() {
    let mut found = Vec::new();
    files(Path::new(MANIFESTS), &mut found);
    let mut kinds = 0;
    for file in found {
        for object in documents(&file) {
            kinds += 1;
            match object["kind"].as_str().unwrap_or_default() {
                "Namespace" => is_whole::<Namespace>(&object),
                "Node" => is_whole::<Node>(&object),
                "ServiceAccount" => is_whole::<ServiceAccount>(&object),
                "ConfigMap" => is_whole::<ConfigMap>(&object),
                "ClusterRole" => is_whole::<ClusterRole>(&object),
                "ClusterRoleBinding" => is_whole::<ClusterRoleBinding>(&object),
                "Role" => is_whole::<Role>(&object),
                "RoleBinding" => is_whole::<RoleBinding>(&object),
                "DaemonSet" => is_whole::<DaemonSet>(&object),
                "Job" => is_whole::<Job>(&object),
                "Deployment" => is_whole::<Deployment>(&object),
                "ValidatingAdmissionPolicy" => is_whole::<ValidatingAdmissionPolicy>(&object),
                "ValidatingAdmissionPolicyBinding" => is_whole::<ValidatingAdmissionPolicyBinding>(&object),
                "CustomResourceDefinition" => is_whole::<CustomResourceDefinition>(&object),
                "Kustomization" => {
                    for resource in object["resources"].as_array().unwrap() {
                        let named = file.with_file_name(resource.as_str().unwrap());
                        assert!(named.exists(), "{}: there is no {}", file.display(), named.display());
                    }
                }
                // Its patch is looked at in a test of its own.
                "Component" => {}
                // Rules for Prometheus are no object of Kubernetes.
                "" if object["groups"].is_array() => {}
                // Weft's own kinds are read by its own code, in documents_manifests.rs.
                _ => {
                    assert_eq!(object["apiVersion"], "weft.network/v1alpha1", "{}: {object}", file.display());
                }
            }
        }
    }
    assert!(kinds > 30, "only {kinds} objects were looked at");
}

/// Rules and dashboards ask for metrics that there are.
#[test]
fn every_metric_is_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let snapshot =
        read(&root.join("src/daemon/snapshots/weft_controller__daemon__metrics__tests__metrics.snap"));
    // Those of weft-controller are named in one place.
    let controller = read(&root.join("src/manager/metrics.rs"));
    let known = |metric: &str| {
        let name = metric.strip_suffix("_total").unwrap_or(metric);
        let of_controller =
            name.strip_prefix("weft_").is_some_and(|name| controller.contains(&format!("\"{name}\"")));
        snapshot.contains(&format!("# TYPE {name} ")) || of_controller
    };
    for file in ["rules.yaml", "dashboard.json"] {
        let text = read(&Path::new(MANIFESTS).join("monitoring").join(file));
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let metrics: Vec<&str> = words.filter(|word| word.starts_with("weft_")).collect();
        assert!(metrics.len() > 10, "{file}: {metrics:?}");
        for metric in metrics {
            assert!(known(metric), "{file}: there is no {metric}");
        }
    }
}

/// The programs take the arguments that the manifests give them.
#[test]
fn every_argument_is_one() {
    let help = |program: &str| {
        let said = std::process::Command::new(program).arg("--help").output().unwrap();
        String::from_utf8(said.stdout).unwrap()
    };
    let programs = [
        ("weftd.yaml", "initContainers", help(env!("CARGO_BIN_EXE_weftd"))),
        ("weftd.yaml", "containers", help(env!("CARGO_BIN_EXE_weftd"))),
        ("weft-controller.yaml", "containers", help(env!("CARGO_BIN_EXE_weft-controller"))),
    ];
    for (file, containers, help) in programs {
        let object = &documents(&Path::new(MANIFESTS).join("base").join(file))[0];
        let args = object["spec"]["template"]["spec"][containers][0]["args"].as_array().unwrap();
        let options: Vec<&str> = args.iter().filter_map(|arg| arg.as_str()?.split('=').next()).collect();
        for option in options.iter().filter(|option| option.starts_with("--")) {
            assert!(help.contains(&format!("{option} ")), "{file}: {option} is no option");
        }
        assert!(options.iter().any(|option| option.starts_with("--")), "{file}: {args:?}");
    }
}

/// systemd takes the units to the last key, without a word; the programs take the arguments that they give them.
#[test]
fn every_unit_is_one() {
    let root = tempfile::tempdir().unwrap();
    let (units, programs) = (root.path().join("etc/systemd/system"), root.path().join("usr/local/bin"));
    for folder in [&units, &programs, &root.path().join("bin")] {
        std::fs::create_dir_all(folder).unwrap();
    }
    // That they are there and can be run is all that is asked of them.
    for program in
        ["usr/local/bin/weftd", "usr/local/bin/weftctl", "bin/kill"].map(|path| root.path().join(path))
    {
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let names = ["weftd.service", "weft-drain.service"];
    for name in names {
        std::fs::copy(Path::new(MANIFESTS).join("systemd").join(name), units.join(name)).unwrap();
    }
    let mut verify = std::process::Command::new("systemd-analyze");
    verify
        .args(["verify", "--recursive-errors=no", "--man=no"])
        .arg(format!("--root={}", root.path().display()));
    let said = verify.args(names).output().expect("systemd-analyze, of the package systemd");
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && words.is_empty(), "{words}");

    let weftd = std::fs::read_to_string(units.join("weftd.service")).unwrap();
    let command =
        weftd.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/weftd ")).unwrap();
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_weftd")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let options: Vec<&str> = command.split(' ').filter(|word| word.starts_with("--")).collect();
    assert!(options.iter().all(|option| help.contains(&format!("{option} "))), "{options:?}");
    // The drain is over before weftd is stopped, and nothing that stops weftd stops the unit.
    let drain = std::fs::read_to_string(units.join("weft-drain.service")).unwrap();
    assert!(drain.lines().any(|line| line.starts_with("After=weftd.service ")), "{drain}");
    for key in ["Requires=", "BindsTo=", "PartOf="] {
        assert!(!drain.contains(key), "{key}");
    }
}

/// What patches take away or add to is there.
#[test]
fn patches_speak_of_what_there_is() {
    let manifests = Path::new(MANIFESTS);
    let weftd = &documents(&manifests.join("base/weftd.yaml"))[0];
    let unnumbered = &documents(&manifests.join("overlays/unnumbered/kustomization.yaml"))[0]["patches"][0];
    let operations: Vec<Value> = serde_yaml::from_str(unnumbered["patch"].as_str().unwrap()).unwrap();
    let list = operations[0]["path"].as_str().unwrap().strip_suffix("/-").unwrap();
    assert!(weftd.pointer(list).unwrap().as_array().unwrap().contains(&"NET_ADMIN".into()), "{list}");

    let component =
        &documents(&manifests.join("components/immutable-host/kustomization.yaml"))[0]["patches"][0];
    let patch: Value = serde_yaml::from_str(component["patch"].as_str().unwrap()).unwrap();
    let removed = |object: &Value, pointer: &str, key: &str| -> Vec<String> {
        let items = object.pointer(pointer).unwrap().as_array().unwrap();
        items.iter().map(|item| item[key].as_str().unwrap().to_owned()).collect()
    };
    for (pointer, key) in [
        ("/spec/template/spec/containers/0/volumeMounts", "mountPath"),
        ("/spec/template/spec/volumes", "name"),
    ] {
        let there = removed(weftd, pointer, key);
        let gone = removed(&patch, pointer, key);
        assert!(gone.len() == 4 && gone.iter().all(|name| there.contains(name)), "{gone:?} of {there:?}");
    }
}
