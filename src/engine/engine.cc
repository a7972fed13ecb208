#include "engine/engine.h"

#include <signal.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdlib>
#include <mutex>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/prng.h"
#include "engine/frontend.h"
#include "engine/kv_events.h"
#include "engine/limits.h"
#include "engine/metrics.h"
#include "engine/pooling.h"
#include "engine/reasoning_config.h"
#include "engine/response_store.h"
#include "engine/step_loop.h"
#include "net/http.h"
#include "net/otlp.h"
#include "net/tls.h"
#include "transfer/interface.h"
#include "transfer/transfer.h"

namespace baton::engine {
namespace {

constexpr int64_t kDefaultPoolBytesMax = int64_t{4} << 30;  // vLLM's default on a CPU

// tokenizer_config.json with the chat template in it, as /tokenizer_info gives it; of a GGUF file, what its metadata says of that.
std::string tokenizer_config(const model::WeightFile& file, const text::Tokenizer& tokenizer, const std::string& chat_template) {
  const std::string source = file.hf_tokenizer_config_json();
  const auto have = parse_json(source.empty() ? "{}" : source);
  JsonWriter w;
  w.object();
  for (size_t i = 0; have && i < have->keys.size(); ++i) {
    if (have->keys[i] != "chat_template") w.key(have->keys[i]).raw(have->items[i].raw(source));
  }
  if (source.empty()) {
    w.field("tokenizer_class", "PreTrainedTokenizerFast");
    if (tokenizer.bos() >= 0) w.field("bos_token", tokenizer.token_text(tokenizer.bos()));
    if (tokenizer.eos() >= 0) w.field("eos_token", tokenizer.token_text(tokenizer.eos()));
  }
  if (!chat_template.empty()) w.field("chat_template", chat_template);
  w.end();
  return w.take();
}

Result<std::unique_ptr<text::Tokenizer>> load_tokenizer(const model::WeightFile& file) {
  const model::WeightFile::Vocab* v = file.gguf_vocab();
  if (!v) return text::Tokenizer::from_hf(file.hf_tokenizer_json(), file.hf_tokenizer_config_json());
  return text::Tokenizer::from_gguf(text::gguf_vocab_of(*v));
}

// Pool size in blocks, the null block included.
Result<int32_t> pool_blocks(const EngineConfig& c, size_t block_bytes) {
  if (c.num_blocks > 0) return c.num_blocks + 1;
  int64_t bytes = c.kv_cache_bytes > 0 ? c.kv_cache_bytes : int64_t{c.kv_cache_gib} << 30;
  if (bytes == 0) {
    const int64_t memory = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
    bytes = std::min(kDefaultPoolBytesMax, memory * 2 / 5);
  }
  const int64_t blocks = bytes / static_cast<int64_t>(block_bytes);
  if (blocks < 2 || blocks > INT32_MAX) {
    return fail(Code::kInvalidArgument, "a KV pool of ", bytes, " bytes holds ", blocks, " blocks of ", block_bytes, " bytes");
  }
  return static_cast<int32_t>(blocks);
}

Result<int32_t> context_length(const EngineConfig& c, const model::ModelConfig& m, int32_t blocks) {
  const int32_t in_pool = static_cast<int32_t>(std::min<int64_t>(int64_t{blocks - 1} * c.block_size, INT32_MAX));
  if (c.max_model_len == 0) return std::min(m.context, in_pool);
  if (c.max_model_len > m.context) {
    return fail(Code::kInvalidArgument, "User-specified max_model_len (", c.max_model_len,
                ") is greater than the derived max_model_len (", m.context, ")");
  }
  if (c.max_model_len > in_pool) {
    return fail(Code::kInvalidArgument, "max_model_len ", c.max_model_len, " needs more KV than the pool holds (", in_pool,
                " tokens): raise VLLM_CPU_KVCACHE_SPACE or --kv-cache-memory-bytes, or lower --max-model-len");
  }
  return c.max_model_len;
}

}  // namespace

Result<EngineParts> load_parts(const EngineConfig& config, std::function<void(double)> progress) {
  BATON_TRY(auto file, model::WeightFile::open(config.model));
  EngineParts parts;
  BATON_TRY(parts.tokenizer, load_tokenizer(*file));
  std::string source = file->chat_template();
  if (!config.chat_template.empty()) {
    source = config.chat_template;
    if (source.find("{%") == std::string::npos && source.find("{{") == std::string::npos) {
      BATON_TRY(source, read_file(config.chat_template, kChatTemplateBytesMax));
    }
  }
  if (!source.empty()) {
    BATON_TRY(parts.chat_template, text::ChatTemplate::compile(source));
  }
  parts.tokenizer_config_json = tokenizer_config(*file, *parts.tokenizer, source);
  model::LoadOptions options = load_options(config);
  options.progress = std::move(progress);
  if (config.tensor_parallel_size > 1) {
    BATON_TRY(parts.ranks, Ranks::start(config, file->config()));
    options.ranks = &parts.ranks->group();
  }
  BATON_TRY(parts.model, model::Model::load(config.model, options));
  if (parts.ranks) BATON_OK(parts.ranks->await_loaded());
  return parts;
}

struct Engine::Impl {
  EngineConfig config;
  SteadyClock clock;
  Metrics metrics;
  std::unique_ptr<net::Tracing> tracing;
  std::optional<EngineMetrics> engine_metrics;
  std::optional<transfer::PoolMemory> pool;  // outlives model and node
  EngineParts parts;
  std::unique_ptr<transfer::TransferNode> node;
  std::unique_ptr<KvEventPublisher> events;  // outlives the loop
  std::unique_ptr<StepLoop> loop;
  std::optional<Constraints> constraints;
  std::optional<Adapters> adapters;  // after parts, which read them
  std::unique_ptr<ResponseStore> responses;
  Serving serving;
  std::unique_ptr<net::Server> server;
  std::mutex transfer_mutex;
  std::condition_variable transfer_news;  // maybe a grant ended
  int32_t blocks = 0;
  bool stopped = false;

  Result<> start();
  Result<> make_pool();
  void choose_parsers();
  Result<> start_pool();
  Result<> start_transfer();
  Result<> start_tracing();
  Result<> start_server();
  Result<> start_adapters();
  Result<> keep_kv_memory(bool keep);
  void watch_ranks();
  void stop();
};

// Of `blocks` blocks; peers on this host may read it, nobody but our ranks may write it.
Result<> Engine::Impl::make_pool() {
  using enum transfer::PoolMemory::Sharing;
  const size_t bytes = static_cast<size_t>(blocks) * parts.model->kv_layout().block_bytes();
  const auto sharing = parts.ranks ? kWriters : config.kv_transfer ? kReaders : kNobody;
  BATON_TRY(pool, transfer::PoolMemory::create(bytes, "baton-kv", sharing));
  if (parts.ranks) {
    BATON_OK(parts.ranks->share_pool(&*pool));
    BATON_OK(pool->seal());
  }
  if (config.kv_transfer || parts.ranks) pool->touch_in_background();
  return parts.model->bind_kv(pool->bytes());
}

Result<> Engine::Impl::start_pool() {
  const kv::KvLayout layout = parts.model->kv_layout();
  BATON_TRY(blocks, pool_blocks(config, layout.block_bytes()));
  BATON_TRY(serving.max_model_len, context_length(config, parts.model->config(), blocks));
  return make_pool();
}

Result<> Engine::Impl::start_transfer() {
  if (!config.kv_transfer) return {};
  for (const auto& note : config.kv_notes) log_info("kv-transfer-config", "note=\"{}\"", note);
  BATON_TRY(auto where, transfer::choose_interface(config.kv_host, config.kv_interface));
  transfer::NodeOptions options{.engine_id = config.kv_engine_id.empty() ? uuid4() : config.kv_engine_id,
                                .host = where.host,
                                .port = config.kv_port,
                                .peers = config.kv_peers,
                                .transport = config.kv_transport,
                                .interface = where.interface,
                                .fingerprint = parts.model->fingerprint(),
                                .lease_ms = config.kv_lease_s * 1000,
                                .secret = config.kv_secret,
                                .metric_labels = {{"model_name", config.served_model_names.front()}, {"engine", "0"}}};
  BATON_TRY(node, transfer::TransferNode::start(std::move(options), parts.model->kv_layout(), *pool, metrics));
  return {};
}

// Asleep, the pool is gone: its memory is sealed against shrinking, so that no peer that maps it is killed.
Result<> Engine::Impl::keep_kv_memory(bool keep) {
  if (keep) return make_pool();
  if (parts.ranks) BATON_OK(parts.ranks->share_pool(nullptr));
  pool.reset();
  return {};
}

// As a dead step thread: whoever supervises the process starts a new one.
void Engine::Impl::watch_ranks() {
  if (!parts.ranks) return;
  parts.ranks->on_lost([this] {
    loop->give_up();
    loop->post([](Core& core) { core.refuse(Error{Code::kInternal, kEngineDead}); });
    kill(getpid(), SIGTERM);
  });
}

Result<> Engine::Impl::start_server() {
  net::ServerOptions http;
  http.host = config.host;
  http.port = config.port;
  http.threads = config.io_threads;
  if (!config.ssl_certfile.empty()) {
    BATON_TRY(http.tls, net::TlsServer::make({.cert_file = config.ssl_certfile,
                                              .key_file = config.ssl_keyfile,
                                              .client_ca_file = config.ssl_cert_reqs == 2 ? config.ssl_ca_certs : "",
                                              .reload = config.ssl_refresh,
                                              .alpn = {"http/1.1"}}));
  }
  server = std::make_unique<net::Server>(std::move(http), make_frontend(serving));
  return server->start();
}

Result<> Engine::Impl::start_adapters() {
  if (config.lora_updating) log_warn("LoRA adapters can be loaded and unloaded over HTTP: whoever reaches this port names directories", "port={}", config.port);
  if (!config.enable_lora) return {};
  auto load_adapter = [this](const std::string& path) {
    return parts.ranks ? parts.ranks->load_lora(*parts.model, path, config.max_lora_rank) : parts.model->load_lora(path, config.max_lora_rank);
  };
  serving.adapters = &adapters.emplace(std::move(load_adapter), config.served_model_names, config.max_cpu_loras);
  for (const LoraModule& module : config.loras)
    if (auto loaded = adapters->load(module, false); !loaded) return within(cat("--lora-modules ", module.name), std::move(loaded).error());
  return {};
}

// As vLLM: only where the flag names a collector; the rest by OpenTelemetry's variables.
Result<> Engine::Impl::start_tracing() {
  if (config.otlp_traces_endpoint.empty()) return {};
  const auto environ_of = [this](const char* name) -> const char* {
    return std::string_view(name) == "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" ? config.otlp_traces_endpoint.c_str()
                                                                         : std::getenv(name);
  };
  BATON_TRY(const net::OtlpConfig otlp, net::otlp_config(environ_of, "vllm"));
  BATON_TRY(tracing, net::Tracing::make(otlp, clock));
  serving.tracer = tracing->tracer();
  return {};
}

// As vLLM, which reads gpt-oss's format whatever was asked, and lets it call tools.
void Engine::Impl::choose_parsers() {
  if (parts.model->config().family != "gpt-oss") return;
  if (config.reasoning_parser.empty()) config.reasoning_parser = "openai_gptoss";
  if (config.tool_call_parser.empty()) config.tool_call_parser = "openai";
  config.auto_tool_choice = true;
}

Result<> Engine::Impl::start() {
  choose_parsers();
  BATON_TRY(serving.pooling, pooling_config(config));
  BATON_TRY(serving.thinking, thinking_marks(config, *parts.tokenizer));
  BATON_OK(start_tracing());
  BATON_OK(start_adapters());
  BATON_OK(start_pool());
  BATON_OK(start_transfer());
  engine_metrics.emplace(metrics, MetricsConfig{.model_name = config.served_model_names.front(),
                                                .max_model_len = serving.max_model_len,
                                                .block_tokens = config.block_size,
                                                .blocks = blocks,
                                                .cache_dtype = config.kv_cache_dtype,
                                                .prefix_caching = config.prefix_caching,
                                                .speculative_tokens = config.speculation ? config.speculation->num_speculative_tokens : 0,
                                                .max_loras = config.enable_lora ? config.max_loras : 0});
  CoreOptions options{
      .scheduler = {.max_num_batched_tokens = config.max_num_batched_tokens,
                    .max_num_seqs = config.max_num_seqs,
                    .max_model_len = serving.max_model_len,
                    .block_tokens = config.block_size,
                    .long_prefill_token_threshold = config.long_prefill_token_threshold,
                    .chunked_prefill = config.chunked_prefill,
                    .priority_policy = config.scheduling_policy == "priority",
                    .max_loras = config.max_loras},
      .prefix_caching = config.prefix_caching,
      .fail_on_load_error = config.kv_load_failure_policy == "fail",
      .push_chunk_tokens = config.kv_push_chunk,
      .speculation = config.speculation,
      .hash_root = kv::root_hash(random_hex(32)),
      .on_transfer_events =
          [this] {
            {
              std::lock_guard lock(transfer_mutex);
            }  // a waiter is before its check or asleep, never between
            transfer_news.notify_all();
          },
      .on_broken = [this] { loop->give_up(); },
  };
  if (config.kv_events.enabled) {
    BATON_TRY(events, KvEventPublisher::start(config.kv_events, config.block_size));
    options.on_cache_changes = [this](std::vector<kv::CacheChange> changes) { events->publish(std::move(changes)); };
  }
  auto core = std::make_unique<Core>(options, *parts.model, kv::BlockPool(blocks, config.prefix_caching), node.get(),
                                     *engine_metrics, clock);
  // A dead step thread ends the process the ordinary way, so that whoever supervises it starts a new one.
  loop = std::make_unique<StepLoop>(std::move(core), clock, config.log_stats, [] { kill(getpid(), SIGTERM); });
  if (node) node->set_wakeup([this] { loop->wake(); });
  serving.config = &config;
  serving.model = &parts.model->config();
  serving.tokenizer = parts.tokenizer.get();
  serving.chat_template = parts.chat_template ? &*parts.chat_template : nullptr;
  serving.constraints = &constraints.emplace(*parts.tokenizer, parts.model->config().vocab);
  serving.loop = loop.get();
  if (config.responses_store) responses = std::make_unique<ResponseStore>(kStoredResponsesMax, kStoredBytesMax, kEventLogsMax);
  serving.responses = responses.get();
  serving.metrics = &*engine_metrics;
  serving.clock = &clock;
  serving.layout_id = parts.model->kv_layout().id();
  serving.kv_transfer = node != nullptr;
  serving.node = node.get();
  serving.started_ms = clock.now_ms();
  loop->start();
  watch_ranks();
  serving.keep_kv_memory = [this](bool keep) { return keep_kv_memory(keep); };
  serving.keep_weights = [this](bool keep) { return parts.ranks ? parts.ranks->keep_weights(*parts.model, keep) : parts.model->keep_weights(keep); };
  serving.fingerprint = system_fingerprint(config, parts.model->fingerprint());
  for (const std::string& note : config.flag_notes) log_info("flag", "note=\"{}\"", note);
  serving.tokenizer_config_json = parts.tokenizer_config_json.empty() ? "{}" : parts.tokenizer_config_json;
  return start_server();
}

void Engine::Impl::stop() {
  if (std::exchange(stopped, true)) return;
  const int64_t deadline = clock.now_ms() + int64_t{config.drain_s} * 1000;
  if (node) node->drain();
  if (responses) responses->cancel_all();  // what is made in the background can be fetched by nobody any more
  if (server) server->stop(net::Millis(int64_t{config.drain_s} * 1000));
  // Answers are out; decode workers may still be reading what they were promised.
  if (node) {
    std::unique_lock lock(transfer_mutex);
    transfer_news.wait_for(lock, std::chrono::milliseconds(deadline - clock.now_ms()), [&] { return node->grants_live() == 0; });
  }
  if (parts.ranks) parts.ranks->on_lost({});
  if (loop) loop->stop();
  if (tracing) tracing->stop();
  node.reset();  // joins the thread that may still be calling loop->wake()
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() { impl_->stop(); }

Result<std::unique_ptr<Engine>> Engine::start(EngineConfig config, std::function<void(double)> progress) {
  BATON_TRY(EngineParts parts, load_parts(config, std::move(progress)));
  return start_with(std::move(config), std::move(parts));
}

Result<std::unique_ptr<Engine>> Engine::start_with(EngineConfig config, EngineParts parts) {
  auto impl = std::make_unique<Impl>();
  impl->config = std::move(config);
  impl->parts = std::move(parts);
  if (auto ok = impl->start(); !ok) {
    impl->config.drain_s = 0;
    impl->stop();
    return std::unexpected(ok.error());
  }
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

int Engine::port() const { return impl_->server->port(); }
int Engine::kv_port() const { return impl_->node ? impl_->node->port() : 0; }
bool Engine::alive() const { return impl_->loop->alive(); }
void Engine::stop() { impl_->stop(); }

std::string Engine::summary() const {
  const Impl& i = *impl_;
  return cat(i.config.served_model_names.front(), ", ", i.parts.model->backend(), ", context ", i.serving.max_model_len, ", ",
             i.blocks - 1, " KV blocks of ", i.config.block_size, " tokens",
             i.node ? cat(", KV port ", i.node->port()) : std::string());
}

}  // namespace baton::engine
