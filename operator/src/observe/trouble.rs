//! What a pod says of itself that is not Ready.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use kube::ResourceExt;
use sconce_api::Reason;

/// Why a pod that is not Ready is not: the table's word, and a sentence. `bool`: whether it is a failure rather than work.
pub fn trouble_of(pod: &Pod) -> (Reason, String, bool) {
    let name = pod.name_any();
    let status = pod.status.clone().unwrap_or_default();
    if let Some(fetch) = status.init_container_statuses.iter().flatten().find(|status| status.name == "fetch") {
        if let Some(told) = failed_fetch(fetch) {
            let reason = match told.split([':', ' ']).next() {
                Some("DigestMismatch") => Reason::DigestMismatch,
                Some("SignatureInvalid") => Reason::SignatureInvalid,
                Some("ArtifactMissing") => Reason::ArtifactMissing,
                Some("Unauthorized") => Reason::Unauthorized,
                _ => Reason::FetchFailed,
            };
            return (reason, format!("{name} cannot fetch the model: {told}"), true);
        }
        if fetch.state.as_ref().is_some_and(|state| state.running.is_some()) {
            return (Reason::Fetching, format!("{name} is fetching the model"), false);
        }
    }
    if let Some(serve) = status.container_statuses.iter().flatten().find(|status| status.name == "serve") {
        if let Some(terminated) = last_end(serve).filter(|end| end.reason.as_deref() == Some("OOMKilled")) {
            let code = terminated.exit_code;
            return (Reason::OutOfMemory, format!("{name} was ended for its memory (exit {code})"), true);
        }
        if serve.restart_count > 0 && waits_in(serve, "CrashLoopBackOff") {
            let end = last_end(serve);
            let code = end.map_or(0, |end| end.exit_code);
            let told = end.and_then(|end| end.message.clone()).unwrap_or_default();
            let times = serve.restart_count;
            let text = format!("{name} crashed {times} times, last with exit {code}: {}", told.trim());
            return (Reason::CrashLooping, text.trim_end_matches([':', ' ']).to_owned(), true);
        }
    }
    (Reason::Starting, waiting(&status).map_or(format!("{name} is starting"), |told| format!("{name}: {told}")), false)
}

/// What the fetch said when it ended without success; it may already be running again.
fn failed_fetch(fetch: &ContainerStatus) -> Option<String> {
    let end = last_end(fetch).filter(|end| end.exit_code != 0)?;
    let told = end.message.as_deref().map(str::trim).filter(|told| !told.is_empty());
    Some(told.map_or_else(|| format!("FetchFailed: exit {}", end.exit_code), str::to_owned))
}

fn last_end(container: &ContainerStatus) -> Option<&k8s_openapi::api::core::v1::ContainerStateTerminated> {
    let ended = |state: &Option<ContainerState>| state.as_ref().is_some_and(|state| state.terminated.is_some());
    let state = if ended(&container.state) { &container.state } else { &container.last_state };
    state.as_ref()?.terminated.as_ref()
}

fn waits_in(container: &ContainerStatus, reason: &str) -> bool {
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
    waiting.is_some_and(|waiting| waiting.reason.as_deref() == Some(reason))
}

/// What holds a pod up before its containers run: no node takes it, or its image is not there.
fn waiting(status: &k8s_openapi::api::core::v1::PodStatus) -> Option<String> {
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(message) = unscheduled.and_then(|condition| condition.message.clone()) {
        return Some(format!("no node takes it: {message}"));
    }
    let containers = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref()).find_map(|waiting| {
        let reason = waiting.reason.as_deref()?;
        reason.contains("Image").then(|| format!("{reason}: {}", waiting.message.as_deref().unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(status: serde_json::Value, expected: (Reason, &str, bool)) {
        let pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap();
        let (reason, message, failed) = trouble_of(&pod);
        assert_eq!((reason, message.as_str(), failed), expected);
    }

    #[test]
    fn a_pods_trouble_is_named_by_what_it_says() {
        let fetch = |state| json!({"initContainerStatuses": [{"name": "fetch", "image": "", "imageID": "", "ready": false, "restartCount": 1, "state": state}]});
        let ended = |message| fetch(json!({"terminated": {"exitCode": 1, "message": message}}));
        check(json!({}), (Reason::Starting, "p is starting", false));
        check(fetch(json!({"running": {}})), (Reason::Fetching, "p is fetching the model", false));
        check(
            ended("DigestMismatch: x"),
            (Reason::DigestMismatch, "p cannot fetch the model: DigestMismatch: x", true),
        );
        let unsigned = "p cannot fetch the model: SignatureInvalid: x";
        check(ended("SignatureInvalid: x"), (Reason::SignatureInvalid, unsigned, true));
        let closed = "p cannot fetch the model: Unauthorized: x";
        check(ended("Unauthorized: x"), (Reason::Unauthorized, closed, true));
        check(ended("refused"), (Reason::FetchFailed, "p cannot fetch the model: refused", true));
        check(ended(""), (Reason::FetchFailed, "p cannot fetch the model: FetchFailed: exit 1", true));
        let serve = json!({"containerStatuses": [{"name": "serve", "image": "", "imageID": "", "ready": false, "restartCount": 2,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 101}}}]});
        check(serve, (Reason::CrashLooping, "p crashed 2 times, last with exit 101", true));
        let killed = json!({"containerStatuses": [{"name": "serve", "image": "", "imageID": "", "ready": false, "restartCount": 1,
            "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]});
        check(killed, (Reason::OutOfMemory, "p was ended for its memory (exit 137)", true));
    }
}
