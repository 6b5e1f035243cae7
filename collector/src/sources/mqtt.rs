//! Messages of an MQTT 5 broker, each a sample. A message is acknowledged once it is kept, or refused for good: the broker sends it
//! again to whoever crashed before, and the sample's name tells that it is the same.

use crate::door::LONGEST;
use crate::intake::{Chosen, Intake, Taken, Took};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{ConnectReturnCode, Packet, Publish, SubscribeReasonCode};
use rumqttc::{
    AckMode, AsyncClient, BrokerSessionResumePolicy, Event, IncomingPacketSizeLimit, MqttOptions, Transport,
};
use sha2::{Digest as _, Sha256};
use std::time::Duration;

const KEEP_ALIVE_SECONDS: u16 = 15;
/// So long the broker keeps what comes while we are away.
const SESSION_SECONDS: u32 = 7 * 86_400;
/// Messages that are out at once: each waits for the disk, and may be as large as a sample.
const AT_ONCE: u16 = 8;
/// After this a message is tried again that found no room.
const PAUSE: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_LIMIT: Duration = Duration::from_secs(60);
/// Who we are to the broker.
const USER: &str = "SCONCE_MQTT_USERNAME";
const PASSWORD: &str = "SCONCE_MQTT_PASSWORD";

pub async fn run(broker: &str, topic: &str, share: f64, intake: &Intake, client_id: &str) {
    let (host, port, tls) = match address(broker) {
        Ok(address) => address,
        Err(why) => return tracing::error!(broker, why, "no source of samples"),
    };
    let mut options = MqttOptions::new(session(client_id, topic), (host.as_str(), port));
    options
        .set_keep_alive(KEEP_ALIVE_SECONDS)
        .set_clean_start(false)
        .set_session_expiry_interval(Some(SESSION_SECONDS))
        .set_broker_session_resume_policy(BrokerSessionResumePolicy::AllowBrokerOnly)
        .set_receive_maximum(Some(AT_ONCE))
        .set_incoming_packet_size_limit(IncomingPacketSizeLimit::Bytes(crate::door::LARGEST as u32))
        .set_ack_mode(AckMode::Manual);
    if tls {
        match super::tls::configuration(|name| std::env::var(name).ok()) {
            Ok(config) => drop(options.set_transport(Transport::tls_with_config(config.into()))),
            Err(why) => return tracing::error!(broker, why, "no source of samples"),
        }
    }
    if let Ok(user) = std::env::var(USER) {
        options.set_credentials(user, std::env::var(PASSWORD).unwrap_or_default());
    }
    let (client, mut events) = AsyncClient::builder(options).capacity(usize::from(AT_ONCE) * 2).build();
    let backoff =
        || ExponentialBuilder::new().with_min_delay(AGAIN).with_max_delay(AGAIN_LIMIT).without_max_times().build();
    let mut waits = backoff();
    let mut taking = futures::stream::FuturesUnordered::new();
    loop {
        tokio::select! {
            event = events.poll() => match event {
                Ok(Event::Incoming(Packet::ConnAck(answer))) if answer.code == ConnectReturnCode::Success => {
                    tracing::info!(broker, topic, "subscribing");
                    // The broker may have forgotten us.
                    if let Err(error) = client.try_subscribe(topic, QoS::AtLeastOnce) {
                        tracing::error!(broker, topic, %error, "not subscribed");
                    }
                }
                Ok(Event::Incoming(Packet::SubAck(answer))) => {
                    let is_granted = |code: &&_| matches!(code, SubscribeReasonCode::Success(_));
                    match answer.return_codes.iter().find(|code| !is_granted(code)) {
                        Some(why) => tracing::error!(broker, topic, ?why, "the broker refuses the topic: no samples come"),
                        None => waits = backoff(),
                    }
                }
                Ok(Event::Incoming(Packet::Publish(message))) => taking.push(take(message, share, intake)),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(broker, %error, "the broker is gone");
                    // The next session sends again what was not acknowledged, by other numbers.
                    taking.clear();
                    tokio::time::sleep(waits.next().unwrap_or(AGAIN_LIMIT)).await;
                }
            },
            Some(message) = futures::StreamExt::next(&mut taking), if !taking.is_empty() => {
                client.try_ack(&message).ok();
            }
        }
    }
}

/// Keeps a message, or drops it for good; returns it once the broker need not send it again.
async fn take(message: Publish, share: f64, intake: &Intake) -> Publish {
    let topic = String::from_utf8_lossy(&message.topic).into_owned();
    let taken = Taken {
        content: message.payload.clone(),
        source: format!("mqtt:{topic}"),
        camera: topic,
        group: None,
        label: None,
        consent: consent(&message),
        chosen: Chosen::Share(share),
    };
    loop {
        let took = intake.take(taken.clone()).await;
        if !took.is_worth_another_try() {
            if let Took::Refused(refusal) = took {
                tracing::warn!(%refusal, "a message is dropped");
            }
            return message;
        }
        // Meanwhile it is one of those that are out: the broker sends no more than there is room for.
        tokio::time::sleep(PAUSE).await;
    }
}

/// What the message's user property `consent` says.
fn consent(message: &Publish) -> Option<String> {
    let properties = message.properties.iter().flat_map(|properties| &properties.user_properties);
    let said = properties.filter(|(name, _)| name == "consent").map(|(_, value)| value).next();
    said.filter(|value| value.len() <= LONGEST).cloned()
}

/// By what the broker knows us. A session keeps what it has subscribed to: another topic, which may be a narrower one, is another session.
fn session(client: &str, topic: &str) -> String {
    let topic = Sha256::digest(topic);
    format!("{client}-{:02x}{:02x}{:02x}{:02x}", topic[0], topic[1], topic[2], topic[3])
}

/// Host, port, and whether TLS is spoken there.
fn address(broker: &str) -> Result<(String, u16, bool), &'static str> {
    let (scheme, address) = broker.split_once("://").ok_or("a broker is mqtt://HOST:PORT, or mqtts://")?;
    let (tls, usual) = match scheme {
        "mqtt" => (false, "1883"),
        "mqtts" => (true, "8883"),
        _ => return Err("a broker is mqtt://HOST:PORT, or mqtts://"),
    };
    let (host, port) = address.rsplit_once(':').unwrap_or((address, usual));
    let port = port.parse().map_err(|_| "the broker's port is no number")?;
    Ok((host.to_owned(), port, tls))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_has_a_host_and_perhaps_a_port() {
        assert_eq!(address("mqtt://door.local"), Ok(("door.local".into(), 1883, false)));
        assert_eq!(address("mqtt://10.0.0.7:1884"), Ok(("10.0.0.7".into(), 1884, false)));
        assert_eq!(address("mqtts://door.local"), Ok(("door.local".into(), 8883, true)));
        assert!(address("http://door.local").is_err() && address("door.local").is_err());
        assert!(address("mqtt://door.local:x").is_err());
    }
}
