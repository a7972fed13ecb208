#include "stack/top.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "base/clock.h"
#include "net/http.h"
#include "stack/chat.h"
#include "stack/limits.h"
#include "stack/top_view.h"

namespace baton::stack {
namespace {

// The terminal in the state that drawing needs; as it was before afterwards.
class Screen {
 public:
  Screen() {
    if (::tcgetattr(0, &before_) != 0) return;
    termios raw = before_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    raw.c_cc[VMIN] = 0, raw.c_cc[VTIME] = 0;
    keys_ = ::tcsetattr(0, TCSANOW, &raw) == 0;
    std::fputs("\033[?1049h\033[?25l", stdout);  // its own page, no cursor
  }
  ~Screen() {
    std::fputs("\033[?25h\033[?1049l", stdout);
    std::fflush(stdout);
    if (keys_) ::tcsetattr(0, TCSANOW, &before_);
  }
  Screen(const Screen&) = delete;
  void show(const std::vector<std::string>& lines) {
    std::string out = "\033[H";
    for (const std::string& line : lines) out += cat(line, "\033[K\n");
    out += "\033[J";
    std::fwrite(out.data(), 1, out.size(), stdout);
    std::fflush(stdout);
  }

 private:
  termios before_{};
  bool keys_ = false;
};

class Router {
 public:
  Router(Url url, std::string api_key) : url_(std::move(url)), api_key_(std::move(api_key)) {}
  Result<TopState> look() {
    Result<TopState> out = fail(Code::kUnavailable, "not asked");
    net::run_task([&]() -> net::Task<> { out = co_await ask(); });
    return out;
  }

 private:
  net::Task<Result<std::string>> get(net::Client& client, std::string_view path) {
    net::Call call;
    call.host = url_.host, call.port = url_.port, call.target = path;
    if (!api_key_.empty()) call.headers.set("Authorization", cat("Bearer ", api_key_));
    call.connect_timeout = call.first_byte_timeout = call.idle_timeout = net::Millis(kTopTimeoutMs);
    call.body_bytes_max = kTopBytesMax;
    BATON_CO_TRY(net::Response response, co_await client.fetch(std::move(call)));
    if (response.status == 401) co_return fail(Code::kUnauthenticated, "the router wants a key: --api-key, or BATON_API_KEY");
    if (response.status != 200)
      co_return fail(Code::kUnavailable, path, " answers ", response.status, "; is this a baton-router?");
    co_return std::move(response.body);
  }
  net::Task<Result<TopState>> ask() {
    net::Client client;
    BATON_CO_TRY(const std::string state, co_await get(client, "/debug/plugins/state"));
    auto metrics = co_await get(client, "/metrics");
    co_return read_top(state, metrics.value_or(""), static_cast<double>(clock_.now_ms()) / 1000);
  }
  Url url_;
  std::string api_key_;
  SteadyClock clock_;
};

TopLook look_of(const TopConfig& config, bool terminal) {
  TopLook look;
  look.color = config.color == "always" || (config.color == "auto" && terminal && std::getenv("NO_COLOR") == nullptr);
  const char* locale = std::getenv("LC_ALL") ? std::getenv("LC_ALL") : std::getenv("LANG");
  look.ascii = locale != nullptr && (std::string_view(locale) == "C" || std::string_view(locale) == "POSIX");
  winsize size{};
  look.width = 132;
  if (terminal && ::ioctl(1, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) look.width = size.ws_col, look.height = size.ws_row;
  return look;
}

// True: draw again. False: the person wants to leave.
bool pause_or_quit(int signals, int64_t ms) {
  pollfd fds[2] = {{0, POLLIN, 0}, {signals, POLLIN, 0}};
  if (::poll(fds, 2, static_cast<int>(ms)) <= 0) return true;
  if (fds[1].revents != 0) return false;
  char key = 0;
  const ssize_t n = ::read(0, &key, 1);
  return n == 1 && key != 'q' && key != 'Q' && key != 27 && key != 3;
}

}  // namespace

Options top_options(TopConfig& c) {
  Options o("baton top", "watch a router: pools, roles, queues, caches, decisions and why", "baton top [--url URL] [--once]");
  o.add("url", &c.url, "the router's gateway, or its metrics port").env("BATON_URL");
  o.add("api-key", &c.api_key, "where the gateway asks for one").env("BATON_API_KEY");
  o.add("once", &c.once, "print one picture and end");
  o.add("interval", &c.interval_ms, "ms", "between two pictures", 100, 3'600'000);
  o.add("color", &c.color, "colours", {"auto", "always", "never"});
  return o;
}

Result<> top(const TopConfig& config) {
  BATON_TRY(Url url, parse_url(config.url));
  Router router(std::move(url), config.api_key);
  BATON_TRY(TopState now, router.look());
  const bool terminal = ::isatty(1) == 1;
  if (config.once || !terminal) {
    for (const std::string& line : draw_top(now, nullptr, config.url, look_of(config, terminal)))
      std::printf("%s\n", line.c_str());
    return {};
  }
  sigset_t set;
  sigemptyset(&set);
  for (int s : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, s);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  const int signals = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  {
    Screen screen;
    std::optional<TopState> before;
    do {
      const TopLook look = look_of(config, true);
      screen.show(draw_top(now, before ? &*before : nullptr, cat(config.url, "   q ends"), look));
      if (!pause_or_quit(signals, config.interval_ms)) break;
      auto next = router.look();
      for (; !next; next = router.look()) {
        screen.show({cat("baton top  ", config.url), "", next.error().message, "", "trying again; q ends"});
        if (!pause_or_quit(signals, config.interval_ms)) break;
      }
      if (!next) break;
      before = std::exchange(now, *std::move(next));
    } while (true);
  }
  ::close(signals);
  return {};
}

}  // namespace baton::stack
