//! What the server says about itself and its models: the same messages for both wires.

use super::{Refusal, Service};
use crate::batch::{DEFAULT_LEVEL, LEVELS};
use crate::catalogue::{Control, Model, Unserved};
use crate::decode::ENCODED;
use crate::encode::Identity;
use crate::logs::{LogsError, Settings};
use crate::statistics::Spent;
use crate::wire::model_instance_group::Kind;
use crate::wire::model_metadata_response::TensorMetadata;
use crate::wire::repository_index_response::ModelIndex;
use crate::wire::{
    DataType, InferBatchStatistics, InferStatistics, ModelConfig, ModelDynamicBatching, ModelInput, ModelInstanceGroup,
    ModelMetadataResponse, ModelOutput, ModelReadyResponse, ModelStatistics, ModelStatisticsResponse,
    ModelTransactionPolicy, RepositoryIndexResponse, ServerMetadataResponse, StatisticDuration,
};
use sconce_model::artifact::TensorSpec;
use std::time::UNIX_EPOCH;

const PLATFORM: &str = "sconce_candle";
/// Of the protocol, as far as they are served.
const EXTENSIONS: [&str; 8] = [
    "binary_tensor_data",
    "classification",
    "logging",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
];

impl Service {
    pub(super) fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    pub(super) fn server_metadata(&self) -> ServerMetadataResponse {
        let extensions = EXTENSIONS.map(String::from).into();
        ServerMetadataResponse { name: self.name.clone(), version: env!("CARGO_PKG_VERSION").into(), extensions }
    }

    /// Whether it can be asked now; one that is known and does not run cannot.
    pub(super) fn model_ready(&self, name: &str, version: &str) -> Result<ModelReadyResponse, Refusal> {
        match self.catalogue.named(name, version) {
            Ok(_) => Ok(ModelReadyResponse { ready: self.is_ready() }),
            Err(Unserved::Unavailable { .. }) => Ok(ModelReadyResponse { ready: false }),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn model_metadata(&self, name: &str, version: &str) -> Result<ModelMetadataResponse, Refusal> {
        let model = self.catalogue.named(name, version)?;
        let models = self.catalogue.models();
        let versions = models.running().filter(|other| other.identity.name == name);
        Ok(ModelMetadataResponse {
            name: name.into(),
            versions: versions.map(|model| model.identity.version.clone()).collect(),
            platform: PLATFORM.into(),
            inputs: model.inputs().into_iter().map(described).collect(),
            outputs: model.outputs().into_iter().map(described).collect(),
            properties: Default::default(),
        })
    }

    pub(super) fn model_config(&self, name: &str, version: &str) -> Result<ModelConfig, Refusal> {
        let model = self.catalogue.named(name, version)?;
        Ok(ModelConfig {
            name: name.into(),
            platform: PLATFORM.into(),
            backend: "sconce".into(),
            max_batch_size: model.max_batch_size() as i32,
            input: model.inputs().into_iter().map(config_input).collect(),
            output: model.outputs().into_iter().map(config_output).collect(),
            instance_group: vec![ModelInstanceGroup { name: name.into(), count: 1, kind: Kind::Cpu.into() }],
            dynamic_batching: model.policy().map(|policy| ModelDynamicBatching {
                preferred_batch_size: Vec::new(),
                max_queue_delay_microseconds: policy.max_queue_delay.as_micros() as u64,
                priority_levels: LEVELS.into(),
                default_priority_level: DEFAULT_LEVEL.into(),
            }),
            model_transaction_policy: Some(ModelTransactionPolicy { decoupled: false }),
        })
    }

    /// No name means every model, and no version every one.
    pub(super) fn model_statistics(&self, name: &str, version: &str) -> Result<ModelStatisticsResponse, Refusal> {
        if !name.is_empty() {
            self.catalogue.named(name, version)?;
        }
        let asked = |asked: &str, is: &str| asked.is_empty() || asked == is;
        let models = self.catalogue.models();
        let models = models.running().filter(|model| {
            let identity = &model.identity;
            asked(name, &identity.name) && (name.is_empty() || asked(version, &identity.version))
        });
        Ok(ModelStatisticsResponse { model_stats: models.map(|model| statistics(model)).collect() })
    }

    /// What is there and, where clients may load, what might be.
    pub(super) async fn index(&self, only_ready: bool) -> Result<RepositoryIndexResponse, Refusal> {
        let stopping = !self.is_ready();
        let models = self.catalogue.index().await?;
        let models = models.all().map(|(name, entry)| {
            let (ready, reason) = match &entry.running {
                Some(_) if stopping => (false, "the server is shutting down"),
                running => (running.is_some(), entry.reason.as_str()),
            };
            let state = if ready { READY } else { "UNAVAILABLE" };
            let (name, version) = (name.to_owned(), entry.version.clone());
            ModelIndex { name, version, state: state.into(), reason: reason.into() }
        });
        Ok(RepositoryIndexResponse { models: models.filter(|model| !only_ready || model.state == READY).collect() })
    }

    /// The log's settings, once those that are named are changed.
    pub(super) fn log(&self, wanted: &Settings) -> Result<Settings, Refusal> {
        if !wanted.is_empty() {
            if self.catalogue.control() == Control::None {
                return Err(LogsError::Denied.into());
            }
            self.logs.change(wanted)?;
        }
        Ok(self.logs.settings())
    }

    /// A model is what its artifact says: nothing else can be said when it is loaded.
    pub(super) async fn load<'a>(
        &self,
        name: &str,
        mut parameters: impl Iterator<Item = &'a String>,
    ) -> Result<(), Refusal> {
        if let Some(name) = parameters.next() {
            return Err(Refusal::Parameter { verb: "load", name: name.clone() });
        }
        Ok(self.catalogue.load(name).await?)
    }

    /// No model has dependents, whatever is to become of them.
    pub(super) async fn unload<'a>(
        &self,
        name: &str,
        mut parameters: impl Iterator<Item = &'a String>,
    ) -> Result<(), Refusal> {
        if let Some(name) = parameters.find(|name| *name != "unload_dependents") {
            return Err(Refusal::Parameter { verb: "unload", name: name.clone() });
        }
        Ok(self.catalogue.unload(name).await?)
    }
}

const READY: &str = "READY";

fn statistics(model: &Model) -> ModelStatistics {
    let totals = model.metrics.statistics.totals();
    let since_1970 = totals.last_inference.and_then(|last| last.duration_since(UNIX_EPOCH).ok());
    let batches = totals.batches.iter().map(|(rows, spent)| InferBatchStatistics {
        batch_size: *rows as u64,
        compute_input: duration(Spent::default()),
        compute_infer: duration(*spent),
        compute_output: duration(Spent::default()),
    });
    let Identity { name, version } = model.identity.clone();
    ModelStatistics {
        name,
        version,
        last_inference: since_1970.map_or(0, |since| since.as_millis() as u64),
        inference_count: totals.rows,
        execution_count: totals.executions,
        inference_stats: Some(InferStatistics {
            success: duration(totals.success),
            fail: duration(totals.fail),
            queue: duration(totals.queue),
            compute_input: duration(totals.compute_input),
            compute_infer: duration(totals.compute_infer),
            compute_output: duration(totals.compute_output),
            cache_hit: duration(Spent::default()),
            cache_miss: duration(Spent::default()),
        }),
        batch_stats: batches.collect(),
    }
}

fn described(tensor: TensorSpec) -> TensorMetadata {
    TensorMetadata { name: tensor.name, datatype: tensor.datatype, shape: tensor.shape }
}

/// Clients that fill whatever is not optional send the tensor.
fn config_input(tensor: TensorSpec) -> ModelInput {
    ModelInput {
        optional: tensor.name == ENCODED,
        data_type: data_type(&tensor.datatype).into(),
        dims: of_row(&tensor),
        name: tensor.name,
    }
}

fn config_output(tensor: TensorSpec) -> ModelOutput {
    ModelOutput { data_type: data_type(&tensor.datatype).into(), dims: of_row(&tensor), name: tensor.name }
}

/// The shape without the batch.
fn of_row(tensor: &TensorSpec) -> Vec<i64> {
    tensor.shape.get(1..).unwrap_or_default().to_vec()
}

fn data_type(datatype: &str) -> DataType {
    let name = if datatype == "BYTES" { "STRING" } else { datatype };
    DataType::from_str_name(&format!("TYPE_{name}")).unwrap_or_default()
}

fn duration(spent: Spent) -> Option<StatisticDuration> {
    let ns = u64::try_from(spent.time.as_nanos()).unwrap_or(u64::MAX);
    Some(StatisticDuration { count: spent.count, ns })
}
