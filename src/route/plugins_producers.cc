// Rows: data producers, metric sources and extractors, discovery, parsers.
#include "route/plugin_field.h"

namespace baton::route {
namespace {

constexpr std::string_view kNoClusters = "remote clusters are not known here";
constexpr std::string_view kOneProducer = "accepted; there is one producer of it";

constexpr Field kPrefixFields[] = {
    field<&PrefixParams::auto_tune>("autoTune", "block size and capacity from the engines' cache_config_info"),
    field<&PrefixParams::block_tokens>("blockSizeTokens", "tokens a block", kPositive),
    field<&PrefixParams::tokens_max>("maxPrefixTokensToMatch", "tokens of a prompt looked at", kPositive),
    field<&PrefixParams::blocks_max>("maxPrefixBlocksToMatch", "blocks of a prompt looked at", {1, kPrefixBlocksMax}),
    field<&PrefixParams::capacity_per_endpoint>("lruCapacityPerServer", "blocks remembered an endpoint", kPositive),
    historic("is blockSizeTokens now", field<&PrefixParams::block_tokens>("blockSize", "", kPositive)),
};
constexpr std::string_view kNoRedis = "a Redis index is not kept here; every replica builds its own from the engines' events";
constexpr Field kKvEventsFields[] = {
    field<&KvEventsParams::block_tokens>("tokenProcessorConfig.blockSizeTokens", "tokens a block", kPositive),
    field<&KvEventsParams::hash_seed>("tokenProcessorConfig.hashSeed", "seed of the internal keys"),
    field<&KvEventsParams::hash_algorithm>("tokenProcessorConfig.hashAlgorithm", "internal keys", {}, "cbor-fnv|xxh64"),
    historic("is blockSizeTokens now", field<&KvEventsParams::block_tokens>("tokenProcessorConfig.blockSize", "", kPositive)),
    field<&KvEventsParams::blocks_max>("indexerConfig.kvBlockIndexConfig.inMemoryConfig.size", "blocks remembered", kPositive),
    quiet("indexerConfig.kvBlockIndexConfig.inMemoryConfig.podCacheSize"),
    field<&KvEventsParams::metrics>("indexerConfig.kvBlockIndexConfig.enableMetrics", "count look-ups and hits"),
    quiet("indexerConfig.kvBlockIndexConfig.metricsLoggingInterval"),
    accepted("indexerConfig.kvBlockIndexConfig.costAwareMemoryConfig", "the index is bounded by its number of blocks"),
    {.name = "indexerConfig.kvBlockIndexConfig.redisConfig", .historic = kNoRedis},
    {.name = "indexerConfig.kvBlockIndexConfig.valkeyConfig", .historic = kNoRedis},
    field<&KvEventsParams::tiers>("indexerConfig.kvCacheBackendConfigs", "list of {name, weight}: what a block in that tier is worth"),
    accepted("indexerConfig.prefixStoreConfig", "prompts are tokenised anew"),
    accepted("indexerConfig.tokenProcessorConfig", "belongs beside indexerConfig"),
    accepted("indexerConfig.tokenizersPoolConfig", "the token-producer tokenises"),
    accepted("tokenizersPoolConfig", "the token-producer tokenises"),
    accepted("scorerConfig", "has no parameters any more"),
    field<&KvEventsParams::zmq_endpoint>("kvEventsConfig.zmqEndpoint", "one address that all engines publish to; none = each pod's own"),
    field<&KvEventsParams::topic_filter>("kvEventsConfig.topicFilter", "prefix of the topics"),
    field<&KvEventsParams::concurrency>("kvEventsConfig.concurrency", "accepted; one thread keeps up", {1, 1024}),
    field<&KvEventsParams::engine_type>("kvEventsConfig.engineType", "whose events", {}, "vllm|sglang"),
    field<&KvEventsParams::discover_pods>("kvEventsConfig.discoverPods", "connect to every pod"),
    quiet("kvEventsConfig.podDiscoveryConfig.podLabelSelector"),
    quiet("kvEventsConfig.podDiscoveryConfig.podNamespace"),
    field<&KvEventsParams::socket_port>("kvEventsConfig.podDiscoveryConfig.socketPort", "port of rank 0; rank n publishes at n above it", {1, 65'535}),
    field<&KvEventsParams::replay_socket_port>("kvEventsConfig.podDiscoveryConfig.replaySocketPort", "asked after a gap; 0 = none", kPort),
    field<&KvEventsParams::speculative>("speculativeIndexing", "count a prompt as cached from its dispatch on"),
    as(Field::Type::kDurationMs, field<&KvEventsParams::speculative_ttl_ms>("speculativeTTL", "for so long", kPositive)),
};
constexpr Field kTokenFields[] = {
    field<&TokenParams::model>("modelName", "tokenizer's model; none = the request's"),
    ours(one_of("estimate|vllm", field<&TokenParams::kind>("kind", "bytes / 4, or an engine's render call; vllm where `vllm` is given"))),
    ours(field<&TokenParams::url>("vllm.url", "where the render calls go")),
    ours(as(Field::Type::kDurationMs, field<&TokenParams::timeout_ms>("vllm.timeout", "of a call", kPositive))),
    ours(as(Field::Type::kDurationMs, field<&TokenParams::media_timeout_ms>("vllm.mmTimeout", "of a call with media", kPositive))),
    accepted("udsTokenizerConfig", "a tokenizer behind a Unix socket is not spoken to; prompts are estimated at 4 bytes a token"),
    quiet("estimate"),
};
constexpr Field kInflightFields[] = {
    field<&InflightParams::output_tokens>("addEstimatedOutputTokens", "count expected answer tokens too"),
    field<&InflightParams::output_ratio>("outputRatio", "answer tokens a prompt token", {0, 1e6}),
    field<&InflightParams::output_tokens_max>("maxEstimatedOutputTokens", "at most; 0 = no limit", kNatural),
    field<&InflightParams::producer>("prefixMatchInfoProducerName", kOneProducer),
    accepted("syncCrossReplicaState", "replicas exchange in-flight counts by --peers"),
};
constexpr Field kPredictedFields[] = {
    field<&PredictedParams::slo_buffer>("sloBufferFactor", "SLOs are multiplied by it", {1e-3, 1e3}),
    as(Field::Type::kDurationMs, field<&PredictedParams::context_ttl_ms>("contextTTL", "accepted", kNatural)),
    field<&PredictedParams::streaming>("streamingMode", "accepted; both are learnt"),
    field<&PredictedParams::in_produce>("predictInProduce", "accepted; predictions are made when used"),
    field<&PredictedParams::role_label>("endpointRoleLabel", "accepted; roles come with the endpoints"),
    field<&PredictedParams::prefix_producer>("prefixMatchInfoProducerName", kOneProducer),
    field<&PredictedParams::tokens_producer>("tokenProducerName", kOneProducer),
    quiet("useEncoderCacheFeatures"), quiet("inFlightLoadProducerName"), quiet("encoderCacheProducerName"),
    accepted("samplingMean", "llm-d ignores it too"), accepted("maxDecodeTokenSamplesForPrediction", "llm-d ignores it too"),
};
constexpr Field kMediaFields[] = {quiet("cacheSizeInMBPerServer")};
constexpr Field kSessionIdFields[] = {
    field<&SessionIdParams::header>("headerName", "request header"),
    field<&SessionIdParams::cookie>("cookieName", "or cookie"),
};
constexpr Field kP2pFields[] = {
    field<&ReferenceParams::tokens_min>("minCachedTokenDelta", "another worker must hold so many tokens more", kPositive),
    field<&ReferenceParams::producer>("prefillProfileName", "accepted"),
};
constexpr Field kSourceFields[] = {
    field<&SourceParams::scheme>("scheme", "how workers are asked", {}, "http|https"),
    field<&SourceParams::path>("path", "what"),
    field<&SourceParams::port>("port", "where; 0 = the endpoint's own", kPort),
    field<&SourceParams::insecure_skip_verify>("insecureSkipVerify", "accept any certificate"),
    field<&SourceParams::ca_cert_path>("caCertPath", "authority of the workers' certificates"),
    field<&SourceParams::client_cert_path>("clientCertPath", "our certificate"),
    field<&SourceParams::client_key_path>("clientKeyPath", "its key"),
    as(Field::Type::kDurationMs, field<&SourceParams::interval_ms>("interval", "how often; 0 = the flag's", kNatural)),
};
constexpr Field kExtractorFields[] = {
    field<&ExtractorParams::engine_label>("engineLabelKey", "pod label that names the engine"),
    field<&ExtractorParams::default_engine>("defaultEngine", "for pods without it"),
    field<&ExtractorParams::engines>("engineConfigs", "list of {name, queuedRequestsSpec, runningRequestsSpec, kvUsageSpec, loraSpec, cacheInfoSpec}"),
};
constexpr Field kDiscoveryFields[] = {
    field<&FileDiscoveryParams::path>("path", "file of endpoints"),
    field<&FileDiscoveryParams::watch>("watchFile", "follow its changes"),
};
constexpr std::string_view kBuiltIn = "the Kubernetes watch is built in";

constexpr PluginRow kRows[] = {
    {.type = "approx-prefix-cache-producer", .kinds = kProducer, .summary = "prefixes sent before, by endpoint", .make = make<PrefixParams>, .fields = kPrefixFields},
    {.type = "precise-prefix-cache-producer", .kinds = kProducer, .summary = "prefixes held, by the engines' KV events", .make = make<KvEventsParams>, .fields = kKvEventsFields},
    {.type = "precise-prefix-cache-scorer", .kinds = kProducer | kScorer, .stability = Stability::kDeprecated,
     .summary = "precise-prefix-cache-producer and prefix-cache-scorer in one", .make = make<KvEventsParams>, .fields = kKvEventsFields, .score = score_prefix},
    {.type = "kvcache-aware-scorer", .kinds = kProducer | kScorer, .stability = Stability::kDeprecated, .same_as = "precise-prefix-cache-scorer"},
    {.type = "token-producer", .kinds = kProducer, .summary = "prompt to tokens", .make = make<TokenParams>, .fields = kTokenFields},
    {.type = "tokenizer", .kinds = kProducer, .stability = Stability::kDeprecated, .same_as = "token-producer"},
    {.type = "inflight-load-producer", .kinds = kProducer, .summary = "requests and tokens in flight", .make = make<InflightParams>, .fields = kInflightFields},
    {.type = "predicted-latency-producer", .kinds = kProducer, .summary = "TTFT and TPOT from the cost model fitted to each worker", .make = make<PredictedParams>, .fields = kPredictedFields},
    {.type = "mm-embeddings-cache-producer", .kinds = kProducer, .summary = "media encoded before, by endpoint", .fields = kMediaFields},
    {.type = "session-id-producer", .kinds = kProducer, .summary = "session from a header or cookie", .make = make<SessionIdParams>, .fields = kSessionIdFields},
    {.type = "p2p-source-producer", .kinds = kProducer, .stability = Stability::kAlpha, .summary = "x-kv-cache-source-host-port: who holds more of the prompt",
     .make = make<ReferenceParams>, .fields = kP2pFields},
    {.type = "agent-identity", .kinds = kProducer, .stability = Stability::kAlpha, .summary = "fairness id from an agent's session headers"},
    {.type = "burst-prefix-cache-producer", .kinds = kProducer, .stability = Stability::kAlpha, .fields = {},
     .ignored = "a prompt is counted as sent at dispatch, so equal prompts that come at once meet already"},
    {.type = "request-attribute-reporter", .kinds = kOther, .ignored = "CEL expressions are not evaluated; usage is in the metrics"},
    {.type = "multicluster-approx-prefix-cache-producer", .kinds = kProducer, .stability = Stability::kAlpha, .ignored = kNoClusters},

    {.type = "metrics-data-source", .kinds = kSource, .summary = "asks workers for /metrics", .make = make<SourceParams>, .fields = kSourceFields},
    {.type = "core-metrics-extractor", .kinds = kExtractor, .summary = "queue, running, KV usage, LoRA, cache size of vLLM, SGLang, TensorRT-LLM, Triton",
     .make = make<ExtractorParams>, .fields = kExtractorFields},
    {.type = "models-data-source", .kinds = kSource, .summary = "asks workers for /v1/models", .make = make<SourceParams>, .fields = kSourceFields},
    {.type = "models-data-extractor", .kinds = kExtractor, .summary = "served models"},
    {.type = "dcgm-data-source", .kinds = kSource, .stability = Stability::kAlpha, .ignored = "GPU utilisation is not read; queue and KV usage say more"},
    {.type = "dcgm-extractor", .kinds = kExtractor, .stability = Stability::kAlpha, .ignored = "GPU utilisation is not read"},
    {.type = "k8s-notification-source", .kinds = kSource, .ignored = kBuiltIn},
    {.type = "endpoint-notification-source", .kinds = kSource, .ignored = kBuiltIn},
    {.type = "topology-extractor", .kinds = kExtractor, .stability = Stability::kAlpha, .ignored = "host, rack, zone and region labels are read where a policy uses them"},
    {.type = "disaggregatedset-rollout-pod-extractor", .kinds = kExtractor, .stability = Stability::kAlpha, .ignored = "DisaggregatedSet rollouts are not known here"},
    {.type = "multicluster-metrics-data-source", .kinds = kSource, .stability = Stability::kAlpha, .ignored = kNoClusters},
    {.type = "multicluster-metrics-extractor", .kinds = kExtractor, .stability = Stability::kAlpha, .ignored = kNoClusters},
    {.type = "file-discovery", .kinds = kDiscovery, .summary = "endpoints from a file, no Kubernetes", .make = make<FileDiscoveryParams>, .fields = kDiscoveryFields},
    {.type = "multicluster-file-discovery", .kinds = kDiscovery, .stability = Stability::kAlpha, .refused = "remote clusters are not known here; use file-discovery"},
    {.type = "local-syncer", .kinds = kOther, .stability = Stability::kAlpha, .ignored = "replicas exchange their state by --peers"},

    {.type = "openai-parser", .kinds = kParser, .summary = "completions, chat, embeddings, responses"},
    {.type = "anthropic-parser", .kinds = kParser, .summary = "messages"},
    {.type = "vllmhttp-parser", .kinds = kParser, .summary = "inference/v1/generate"},
    {.type = "sglanghttp-parser", .kinds = kParser, .summary = "generate"},
    {.type = "vllmgrpc-parser", .kinds = kParser, .summary = "vLLM's gRPC calls"},
    {.type = "vertexai-parser", .kinds = kParser, .summary = "Vertex AI's paths"},
    {.type = "passthrough-parser", .kinds = kParser, .summary = "no parsing: no model, no usage, no prefix"},
};

}  // namespace

std::span<const PluginRow> producer_rows() { return kRows; }

}  // namespace baton::route
