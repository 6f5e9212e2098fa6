#include "graft/hub/http.h"

#include <curl/curl.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "graft/core/error.h"
#include "graft/core/text.h"

namespace graft::hub {
namespace {

struct Transfer {
  const Request& request;
  Response response;
  bool ended = false;  // by the sink or by `stopped`
};

size_t on_header(char* bytes, size_t, size_t size, void* context) {
  auto& response = static_cast<Transfer*>(context)->response;
  std::string line(bytes, size);
  if (line.starts_with("HTTP/")) {
    std::erase_if(response.headers, [](const auto& item) { return !item.first.starts_with("x-"); });
    const auto blank = line.find(' ');
    response.status = blank == std::string::npos ? 0 : std::atol(line.c_str() + blank);
    return size;
  }
  const auto colon = line.find(':');
  if (colon == std::string::npos) return size;
  const auto value = trimmed(std::string_view(line).substr(colon + 1));
  const auto name = lower(line.substr(0, colon));
  // The hub tells of the file in its redirect; the storage behind it may know the same names otherwise.
  if (!name.starts_with("x-") || !response.headers.contains(name)) response.headers[name] = value;
  return size;
}

size_t on_body(char* bytes, size_t, size_t size, void* context) {
  auto& transfer = *static_cast<Transfer*>(context);
  const auto status = transfer.response.status;
  if (transfer.request.sink && (status == 200 || status == 206)) {
    if (!transfer.request.sink(transfer.response, {bytes, size})) {
      transfer.ended = true;
      return 0;
    }
    return size;
  }
  constexpr size_t most = 256 << 20;  // a listing; a weight file never comes here
  if (transfer.response.body.size() + size > most) return 0;
  transfer.response.body.append(bytes, size);
  return size;
}

int on_progress(void* context, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  auto& transfer = *static_cast<Transfer*>(context);
  if (transfer.request.stopped && transfer.request.stopped()) transfer.ended = true;
  return transfer.ended ? 1 : 0;
}

bool is_hopeless(CURLcode code) {
  switch (code) {
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_TOO_MANY_REDIRECTS:
      return true;
    default:
      return false;
  }
}

}  // namespace

std::string Response::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

Response send_once(const Request& request, const Settings& settings) {
  static std::once_flag initialised;
  std::call_once(initialised, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
  const std::unique_ptr<CURL, void (*)(CURL*)> curl(curl_easy_init(), curl_easy_cleanup);
  GRAFT_ASSERT(curl);
  Transfer transfer{request, {}};
  curl_slist* list = nullptr;
  // libcurl sends a header of this name to the first host and port only.
  if (!request.token.empty()) list = curl_slist_append(list, ("Authorization: Bearer " + request.token).c_str());
  list = curl_slist_append(list, "Accept-Encoding: identity");
  const std::unique_ptr<curl_slist, void (*)(curl_slist*)> headers(list, curl_slist_free_all);
  char message[CURL_ERROR_SIZE] = "";

  const auto set = [&](CURLoption option, auto value) { GRAFT_ASSERT(!curl_easy_setopt(curl.get(), option, value)); };
  set(CURLOPT_URL, request.url.c_str());
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_REDIR_PROTOCOLS_STR, request.url.starts_with("https:") ? "https" : "http,https");
  set(CURLOPT_FOLLOWLOCATION, 1L);
  set(CURLOPT_MAXREDIRS, 10L);
  set(CURLOPT_HTTPHEADER, headers.get());
  set(CURLOPT_USERAGENT, "graft/0.1");
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_CONNECTTIMEOUT, static_cast<long>(settings.answer_seconds));
  set(CURLOPT_LOW_SPEED_LIMIT, 1L);
  set(CURLOPT_LOW_SPEED_TIME, static_cast<long>(request.sink ? settings.download_seconds : settings.answer_seconds));
  set(CURLOPT_ERRORBUFFER, message);
  set(CURLOPT_HEADERFUNCTION, on_header);
  set(CURLOPT_HEADERDATA, &transfer);
  set(CURLOPT_WRITEFUNCTION, on_body);
  set(CURLOPT_WRITEDATA, &transfer);
  set(CURLOPT_NOPROGRESS, 0L);
  set(CURLOPT_XFERINFOFUNCTION, on_progress);
  set(CURLOPT_XFERINFODATA, &transfer);
  if (request.from > 0) set(CURLOPT_RANGE, fmt::format("{}-", request.from).c_str());

  const auto code = curl_easy_perform(curl.get());
  if (transfer.ended) throw Stopped();
  const std::string reason = *message ? message : curl_easy_strerror(code);
  if (is_hopeless(code))
    fail(Kind::network, "{}: {}. Correct the address (HF_ENDPOINT), the proxy or the certificates of this machine.",
         host_of(request.url), reason);
  if (code != CURLE_OK) throw Dropped(fmt::format("{}: {}", host_of(request.url), reason));
  return std::move(transfer.response);
}

Response send(const Request& request, const Settings& settings) {
  for (int attempt = 1;; ++attempt) {
    std::string reason;
    std::optional<Response> answer;
    try {
      answer = send_once(request, settings);
      if (!is_passing(answer->status) || attempt >= settings.attempts) return *answer;
    } catch (const Dropped& e) {
      reason = e.what();
    }
    if (!answer && attempt >= settings.attempts)
      throw Unreachable(fmt::format(
          "{}. After {} attempts there is no answer. Check the connection (a proxy is taken from https_proxy, another "
          "hub from HF_ENDPOINT), or work with what is here by HF_HUB_OFFLINE=1.",
          reason, attempt));
    sleep_unless(pause_before(attempt, answer ? &*answer : nullptr, settings), request.stopped);
  }
}

double pause_before(int attempt, const Response* answer, const Settings& settings) {
  constexpr double longest = 300;
  if (answer) {
    const auto told = answer->header("retry-after");
    if (!told.empty() && told.find_first_not_of("0123456789") == std::string::npos)
      return std::min(longest, std::atof(told.c_str()));
    const auto limit = answer->header("ratelimit");  // "api";r=0;t=55: a new window in t seconds
    if (const auto t = limit.find(";t="); answer->status == 429 && t != std::string::npos)
      return std::min(longest, std::atof(limit.c_str() + t + 3));
  }
  return std::min(30.0, settings.first_pause * static_cast<double>(1 << std::min(attempt - 1, 10)));
}

bool is_passing(long status) { return status == 429 || status == 408 || (status >= 500 && status != 501); }

void sleep_unless(double seconds, const std::function<bool()>& stopped) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (Clock::now() < end) {
    if (stopped && stopped()) throw Stopped();
    const std::chrono::duration<double> left = end - Clock::now();
    std::this_thread::sleep_for(std::min(left, std::chrono::duration<double>(0.1)));
  }
}

std::string host_of(const std::string& url) {
  const auto scheme = url.find("://");
  auto host = scheme == std::string::npos ? url : url.substr(scheme + 3);
  host = host.substr(0, host.find_first_of("/?#"));
  const auto user = host.rfind('@');  // what stands before it may be a password
  return user == std::string::npos ? host : host.substr(user + 1);
}

std::string encoded(const std::string& text, bool keep_slash) {
  std::string result;
  for (const unsigned char c : text) {
    const bool plain = std::isalnum(c) || c == '-' || c == '_' || c == '.' || c == '~' || (keep_slash && c == '/');
    result += plain ? std::string(1, static_cast<char>(c)) : fmt::format("%{:02X}", c);
  }
  return result;
}

}  // namespace graft::hub
