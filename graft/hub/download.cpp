#include "graft/hub/download.h"

#include <algorithm>
#include <optional>

#include "graft/core/error.h"
#include "graft/hub/cache.h"
#include "graft/hub/content_hash.h"
#include "graft/hub/http.h"
#include "graft/io/file.h"

namespace graft::hub {
namespace {

/// The whole length that an answer announces, of "bytes 5-9/10" or of Content-Length; nothing when it does not say.
std::optional<uint64_t> announced(const Response& answer) {
  const auto number = [](const std::string& text) -> std::optional<uint64_t> {
    if (text.empty() || text.find_first_not_of("0123456789") != std::string::npos || text.size() > 18) return {};
    return std::stoull(text);
  };
  if (answer.status == 206) {
    const auto range = answer.header("content-range");
    const auto slash = range.rfind('/');
    return slash == std::string::npos ? std::nullopt : number(range.substr(slash + 1));
  }
  return number(answer.header("content-length"));
}

class Fetching {
 public:
  Fetching(const Download& wish, const Settings& settings)
      : wish_(wish),
        settings_(settings),
        partial_(claim_partial(wish.target)),
        file_(partial_),
        hash_(wish.name.empty() ? std::string(64, '0') : wish.name, wish.size.value_or(0)),
        total_(wish.size) {
    if (wish.size && file_.size() > *wish.size) file_.clear();
    read_what_is_there();
  }

  uint64_t run() {
    bool again = false;  // a wrong hash is asked for once more, from the first byte
    while (true) {
      receive();
      const auto found = hash_.hex();
      if (wish_.name.empty() || found == wish_.name) {
        hash_found_ = found;
        break;
      }
      const auto size = file_.size();
      begin_anew();
      if (again) {
        io::remove_all(partial_);
        fail(
            Kind::network,
            "{}: {} bytes arrived from {}, but their hash is {} and the hub says {}. They were not kept. Try again, or "
            "another HF_ENDPOINT.",
            wish_.what, size, host_of(wish_.url), found, wish_.name);
      }
      again = true;
    }
    file_.sync();
    io::rename_folder(partial_, wish_.target);
    return arrived_;
  }

  const std::string& hash_found() const { return hash_found_; }

 private:
  void read_what_is_there() {
    hash_.restart();
    if (file_.size() == 0) return;
    const io::MappedFile there(partial_, Kind::disk);
    hash_.update(there.bytes());
    wish_.progress(static_cast<int64_t>(file_.size()));
  }

  void begin_anew() {
    wish_.progress(-static_cast<int64_t>(file_.size()));
    file_.clear();
    hash_.restart();
  }

  bool complete() const { return total_ ? file_.size() == *total_ : false; }

  /// Attempts until all bytes are here; the count begins anew when an attempt brought some.
  void receive() {
    for (int attempt = 1; !complete(); ++attempt) {
      const auto before = file_.size();
      std::optional<Response> answer;
      std::string reason;
      try {
        answer = request();
      } catch (const Dropped& e) {
        reason = e.what();
      }
      if (complete()) return;
      if (answer) reason = judge(*answer);
      if (file_.size() > before) attempt = 0;
      if (attempt >= settings_.attempts) {
        const auto sentence = fmt::format(
            "{}: {} of {} bytes arrived, then nothing more in {} attempts ({}). What arrived is kept; the same command "
            "goes on from there.",
            wish_.what, file_.size(), total_ ? std::to_string(*total_) : "unknown", attempt, reason);
        if (!answer && arrived_ == 0) throw Unreachable(sentence);
        throw Error(Kind::network, sentence);
      }
      sleep_unless(pause_before(attempt + 1, answer ? &*answer : nullptr, settings_), wish_.stopped);
    }
  }

  Response request() {
    Request request{wish_.url, wish_.token, file_.size(), {}, wish_.stopped};
    bool first = true;
    request.sink = [&](const Response& answer, std::string_view piece) {
      if (first) {
        first = false;
        if (answer.status == 200 && file_.size() > 0) begin_anew();  // a server without ranges sends all of it
        check_size(answer);
      }
      GRAFT_CHECK(network, !total_ || file_.size() + piece.size() <= *total_,
                  "{}: {} sends more than the {} bytes that were announced. Try again, or another HF_ENDPOINT.",
                  wish_.what, host_of(wish_.url), *total_);
      file_.write(piece);
      hash_.update(piece);
      arrived_ += piece.size();
      wish_.progress(static_cast<int64_t>(piece.size()));
      return !wish_.stopped();
    };
    // An exception must not pass through libcurl: it is carried around it.
    std::exception_ptr thrown;
    const auto inner = request.sink;
    request.sink = [&](const Response& answer, std::string_view piece) {
      try {
        return inner(answer, piece);
      } catch (...) {
        thrown = std::current_exception();
        return false;
      }
    };
    try {
      auto answer = send_once(request, settings_);
      if (answer.status == 200 && first) check_size(answer);  // an empty file
      return answer;
    } catch (const Stopped&) {
      if (thrown) std::rethrow_exception(thrown);
      throw;
    }
  }

  void check_size(const Response& answer) {
    const auto size = announced(answer);
    if (!total_ && size) {
      total_ = size;
      constexpr uint64_t room = 8 << 20;
      io::require_space(wish_.target, *size - std::min(*size, file_.size()) + room, "the download of " + wish_.what);
      if (wish_.announce) wish_.announce(*size);
    }
    GRAFT_CHECK(network, !size || *size == *total_,
                "{}: {} says it has {} bytes, the hub's listing says {}. Try again, or another HF_ENDPOINT.",
                wish_.what, host_of(wish_.url), *size, *total_);
  }

  /// What an answer that did not complete the file means; throws when another attempt is of no use.
  std::string judge(const Response& answer) {
    if (answer.status == 416) {  // what is here is not a beginning of what is there
      begin_anew();
      return "the server has no such bytes";
    }
    if (answer.status == 200 || answer.status == 206) {
      if (!total_) total_ = file_.size();  // a length that nobody announced ends with the connection
      return "the connection ended early";
    }
    if (is_passing(answer.status)) return fmt::format("status {}", answer.status);
    const auto code = answer.header("x-error-code");
    // A storage behind the hub refuses for reasons of its own; the hub's redirect to it names the commit.
    const bool refused = (answer.status == 401 || answer.status == 403) && answer.header("x-repo-commit").empty();
    if (!wish_.id.empty() && (refused || (!code.empty() && code != "EntryNotFound")))
      fail_refused(answer.status, code, wish_.id, wish_.revision, settings_);
    fail(Kind::network, "{}: {} answers with status {}.{}", wish_.what, host_of(wish_.url), answer.status,
         answer.status == 401 || answer.status == 403 ? " It is not public." : "");
  }

  const Download& wish_;
  const Settings& settings_;
  fs::path partial_;
  io::GrowingFile file_;
  ContentHash hash_;
  std::optional<uint64_t> total_;
  uint64_t arrived_ = 0;
  std::string hash_found_;
};

}  // namespace

uint64_t download(const Download& wish, const Settings& settings, std::string* found_hash) {
  const FileLock lock(wish.lock, [&] {
    if (wish.stopped()) throw Stopped();
  });
  std::error_code ignored;
  if (fs::exists(wish.target, ignored)) {
    wish.progress(static_cast<int64_t>(fs::file_size(wish.target, ignored)));
    return 0;
  }
  Fetching fetching(wish, settings);
  const auto arrived = fetching.run();
  if (found_hash) *found_hash = fetching.hash_found();
  return arrived;
}

void fail_refused(long status, const std::string& code, const std::string& id, const std::string& revision,
                  const Settings& settings) {
  const auto page = settings.endpoint + "/" + id;
  const auto token = settings.token.empty()
                         ? fmt::format("make a token at {}/settings/tokens and put it into HF_TOKEN", settings.endpoint)
                         : std::string("check that the token in HF_TOKEN is of an account that has access");
  if (code == "GatedRepo" || (status == 403 && code.empty()))
    fail(Kind::network, "{}: its owner gives access only to those who accept the licence. Accept it at {}, then {}.",
         id, page, token);
  if (code == "RevisionNotFound")
    fail(Kind::network, "{}: has no revision `{}`. Its branches and tags are at {}/tree/main.", id, revision, page);
  if (code == "DisabledRepo") fail(Kind::network, "{}: the hub has disabled it. Choose another source.", id);
  if (status == 401 || code == "RepoNotFound" || status == 404)
    fail(Kind::network, "{}: {} has no such model, or it is private. Check the name; when you have access to it, {}.",
         id, host_of(settings.endpoint), token);
  fail(Kind::network, "{}: {} answers with status {}. Try again later, or another hub by HF_ENDPOINT.", id,
       host_of(settings.endpoint), status);
}

}  // namespace graft::hub
