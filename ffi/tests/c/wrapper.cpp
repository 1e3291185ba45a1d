// The C++ header: what throws, what is owned, what moves.
#include <sandcell.hpp>
#include <sandcell.hpp> // twice on purpose

#include <cstdio>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <limits>
#include <type_traits>

#include <poll.h>
#include <sys/stat.h>

#define CHECK(what) \
    do { \
        if (!(what)) { \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what); \
            std::exit(1); \
        } \
    } while (0)

using namespace std::chrono_literals;

static_assert(!std::is_copy_constructible_v<sandcell::Policy> && std::is_nothrow_move_constructible_v<sandcell::Policy>);
static_assert(!std::is_copy_constructible_v<sandcell::Child> && std::is_nothrow_move_constructible_v<sandcell::Child>);
static_assert(!std::is_copy_constructible_v<sandcell::Cell> && std::is_nothrow_move_constructible_v<sandcell::Cell>);
static_assert(!std::is_copy_constructible_v<sandcell::Result> && std::is_nothrow_move_constructible_v<sandcell::Result>);
static_assert(std::is_nothrow_copy_constructible_v<sandcell::Error>);

template <typename Call>
static int thrown(Call call)
{
    try {
        call();
    } catch (const sandcell::Error &error) {
        CHECK(*error.what() != '\0' && *error.stage() != '\0');
        return error.kind();
    }
    return 0;
}

// A text with a NUL inside is a mistake and never cut off, wherever it is given.
static void texts_with_a_nul()
{
    using namespace std::string_literals;
    const auto text = "a\0b"s, file = "/tmp\0x"s;
    sandcell::Policy policy;
    const auto refused = [&](const sandcell::Command &command) {
        try {
            policy.run(command);
        } catch (const sandcell::Error &error) {
            return error.kind() == SANDCELL_ERROR_CONFIG && std::string_view(error.what()).find("NUL") != std::string_view::npos;
        }
        return false;
    };
    CHECK(!refused({"/bin/echo", "a"}));
    CHECK(refused({"/bin/echo", text}));
    CHECK(refused(sandcell::Command{"/bin/echo"}.arg(text)));
    CHECK(refused(sandcell::Command{"/bin/echo"}.arg0(text)));
    CHECK(refused(sandcell::Command{"/bin/echo"}.env(text, "b")));
    CHECK(refused(sandcell::Command{"/bin/echo"}.env("b", text)));
    CHECK(refused(sandcell::Command{"/bin/echo"}.env_remove(text)));
    CHECK(refused(sandcell::Command{"/bin/echo"}.chdir(file)));
    CHECK(thrown([&] { sandcell::Policy().ro(file).prepare(); }) == SANDCELL_ERROR_CONFIG);
    CHECK(thrown([&] { sandcell::Policy().ro("/usr", file).prepare(); }) == SANDCELL_ERROR_CONFIG);
    CHECK(thrown([&] { sandcell::Policy().env("A", text).prepare(); }) == SANDCELL_ERROR_CONFIG);
    CHECK(thrown([&] { sandcell::Policy().hostname(text).prepare(); }) == SANDCELL_ERROR_CONFIG);
    CHECK(thrown([&] { sandcell::Policy().tmpfs(file).prepare(); }) == SANDCELL_ERROR_CONFIG);
    CHECK(thrown([&] { sandcell::owned::remove(file); }) == SANDCELL_ERROR_CONFIG);
    CHECK(thrown([&] { sandcell::owned::copy_out(file, "/tmp/x"); }) == SANDCELL_ERROR_CONFIG);
}

// What is too long to be counted has no end, and nothing overflows on the way.
static void times_without_end()
{
    using Seconds = std::chrono::duration<double>;
    const auto infinite = Seconds(std::numeric_limits<double>::infinity());
    sandcell::Policy policy;
    policy.timeout(std::chrono::hours::max()).grace(infinite).wait_for_ids(std::chrono::nanoseconds::max());
    CHECK(policy.run({"/bin/echo", "a"}).out() == "a\n");
    CHECK(policy.run(sandcell::Command{"/bin/echo", "a"}.timeout(infinite)).out() == "a\n");
    CHECK(policy.run(sandcell::Command{"/bin/echo", "a"}.timeout(std::chrono::milliseconds::max())).out() == "a\n");
    CHECK(policy.run(sandcell::Command{"/bin/echo", "a"}.timeout(std::chrono::hours(1))).out() == "a\n");
    const auto ended = [&](auto wait) {
        auto child = policy.spawn(sandcell::Command{"/bin/echo", "a"}.out("pipe"));
        const auto result = wait(child);
        return result && result->success();
    };
    CHECK(ended([](auto &child) { return child.wait_for(std::chrono::hours::max()); }));
    CHECK(ended([&](auto &child) { return child.wait_for(infinite); }));
    CHECK(ended([](auto &child) { return child.wait_until(std::chrono::steady_clock::time_point::max()); }));
    CHECK(ended([](auto &child) { return child.wait_output_for(std::chrono::hours::max()); }));
    CHECK(ended([](auto &child) { return child.wait_output_until(std::chrono::system_clock::time_point::max()); }));
    auto child = policy.spawn({"/bin/sleep", "1000"});
    CHECK(!child.wait_for(std::chrono::hours::min()) && !child.wait_for(-infinite) && !child.wait_for(Seconds(std::nan(""))));
    CHECK(!child.wait_until(std::chrono::system_clock::time_point::min()) && !child.wait_output_for(1ms));
    sandcell::Command late{"/bin/sleep", "1000"};
    CHECK(policy.grace(0ms).run(late.timeout(Seconds(0.05))).ended() == sandcell::Outcome::timed_out);
}

// Setters chain on a temporary, whose value can be kept; what only tells or ends something is const.
static void chains(const sandcell::Policy &policy)
{
    auto command = sandcell::Command{"/bin/sh", "-c", "echo $A; cat"}.env("A", "b").input("in").chdir("/").timeout(60s);
    static_assert(std::is_same_v<decltype(command), sandcell::Command>);
    static_assert(std::is_same_v<decltype(command.env("A", "c")), sandcell::Command &>);
    CHECK(policy.run(command).out() == "b\nin");
    CHECK(policy.run(std::move(command.env("A", "c"))).out() == "c\nin");
    const auto child = policy.spawn({"/bin/sleep", "1000"});
    CHECK(child.host_id() > 1);
    child.signal(SIGUSR1);
    child.kill();
    const auto cell = policy.start();
    CHECK(cell.usage().wall > 0ns && !cell.usage().user && !cell.usage().system);
    cell.kill();
    const sandcell::Pool pool(policy, 1);
    CHECK(pool.run(command).out() == "c\nin" && pool.spawn({"/bin/true"}).wait().success());
    CHECK(pool.stats().hits == 2 && pool.stats().misses == 0 && pool.stats().waiting == 1);
}

static void named_cells()
{
    const std::string name = "wrapper-" + std::to_string(getpid());
    sandcell::Policy policy;
    const sandcell::NamedCell started =
        policy.detach(name, sandcell::Command({"/bin/sh", "-c", "read line; echo got $line; exit 3"}), SANDCELL_DETACH_KEEP_STDIN);
    const sandcell::NamedCell cell = sandcell::NamedCell::find(name);
    CHECK(cell.cell().run(sandcell::Command({"/bin/echo", "beside"})).out() == "beside\n");
    CHECK(!cell.wait(std::chrono::milliseconds(1)));
    CHECK(cell.info_json().find("running") != std::string::npos);
    CHECK(sandcell::NamedCell::list_json().find(name) != std::string::npos);
    cell.write("typed\n");
    cell.close_stdin();
    CHECK(cell.wait().exit_code() == 3);
    sandcell::Log log = cell.log();
    const auto line = log.next(std::chrono::seconds(10));
    CHECK(line && line->text == "got typed" && line->stream == 1 && !log.next());
    log.seek(line->offset);
    CHECK(log.next()->next == line->next);
    cell.remove();
    try {
        sandcell::NamedCell::find(name);
        CHECK(false);
    } catch (const sandcell::Error &error) {
        CHECK(error.kind() == SANDCELL_ERROR_CONFIG);
    }
    const sandcell::NamedCell empty = policy.detach(name);
    try {
        empty.signal(10);
        CHECK(false);
    } catch (const sandcell::Error &) {
    }
    empty.stop(std::chrono::milliseconds(0));
    CHECK(empty.wait().outcome() == "killed");
    empty.kill();
    empty.remove();
}

static void terminals(const sandcell::Policy &policy)
{
    auto child = policy.spawn(sandcell::Command{"/bin/sh", "-c", "stty size; read x; stty size"}.terminal(33, 99));
    auto terminal = child.take_terminal();
    CHECK(terminal && !child.take_terminal());
    std::string shown;
    while (shown.find("33 99\r\n") == std::string::npos)
        shown += terminal.read();
    CHECK(!terminal.read_for(1ms));
    terminal.resize(5, 6);
    terminal.write("\n");
    while (shown.find("5 6\r\n") == std::string::npos)
        shown += terminal.read();
    CHECK(child.wait().success());
    CHECK(terminal.read().empty());
}

int main()
{
    named_cells();
    CHECK(sandcell::version() == SANDCELL_VERSION);

    sandcell::Policy policy;
    terminals(policy);
    policy.user("1234").env("WHAT", "ever").file("/etc/motd", "be kind\n").timeout(60s).grace(1500us).network("none");
    auto result = policy.run({"/bin/sh", "-c", "id -u; echo $WHAT; cat /etc/motd; printf 'a\\0b'; exit 3"});
    CHECK(result.out() == std::string_view("1234\never\nbe kind\na\0b", 21));
    CHECK(result.exit_code() == 3 && result.outcome() == "exited" && !result.success() && result.uid() == 1234);
    CHECK(result.usage().wall > 0ns && result.usage().output_bytes == 21u && !result.usage().pids_peak);
    CHECK(result.report_json().find("\"code\":3") != std::string_view::npos && result.changes().empty() && !result.changes_truncated());
#if __cplusplus >= 202002L
    CHECK(result.out_bytes().size() == 21 && result.out_bytes()[19] == std::byte{0});
    const std::byte two[] = {std::byte{'h'}, std::byte{'i'}};
    CHECK(policy.run(sandcell::Command{"/bin/cat"}.input(std::span(two))).out() == "hi");
#endif

    texts_with_a_nul();
    times_without_end();
    chains(policy);

    CHECK(thrown([&] { policy.run({"/no/such/program"}); }) == SANDCELL_ERROR_EXEC);
    CHECK(thrown([&] { policy.run({"/bin/true"}); }) == 0);
    try {
        policy.run({"/no/such/program"});
    } catch (const sandcell::Error &error) {
        CHECK(error.code() == std::errc::no_such_file_or_directory);
    }
    sandcell::Policy wrong;
    wrong.network("everything").memory(1);
    CHECK(thrown([&] { wrong.prepare(); }) == SANDCELL_ERROR_CONFIG);
    CHECK(policy.explain_json().front() == '[');
    CHECK(policy.seccomp_bpf().data() != nullptr && policy.seccomp_bpf().size() % 8 == 0);

    CHECK(thrown([] { sandcell::Policy().isolation("elsewhere").prepare(); }) == SANDCELL_ERROR_CONFIG);

    // Trees of leased ids may be the caller's own, too.
    char tree[] = "/tmp/sandcell-tree-XXXXXX";
    CHECK(::mkdtemp(tree) != nullptr);
    const std::string top = tree, copy = top + "/copy";
    CHECK(::mkdir((top + "/d").c_str(), 0700) == 0 && ::symlink("d", (top + "/d/link").c_str()) == 0);
    CHECK(sandcell::owned::copy_out(top + "/d", copy) == 0);
    const auto files = sandcell::owned::list(top);
    CHECK(files.size() == 4 && files[0].path == "copy" && files[1].path == "copy/link" && !files[0].uid);
    CHECK(files[2].kind == sandcell::owned::Entry::Kind::directory && files[2].mode == 0700 && files[2].host_uid == ::getuid());
    CHECK(files[3].kind == sandcell::owned::Entry::Kind::symlink);
    sandcell::owned::reclaim(top);
    sandcell::owned::remove(top);
    CHECK(thrown([&] { sandcell::owned::list(top); }) == SANDCELL_ERROR_IO);

    // A child: pipes, deadlines, signals; destroying it ends it.
    auto child = policy.spawn(sandcell::Command{"/bin/cat"}.in("pipe").out("pipe"));
    CHECK(!child.wait_for(0s) && !child.wait_until(std::chrono::steady_clock::now() + 5ms));
    auto in = child.take_in();
    CHECK(in && !child.take_in() && ::write(in.get(), "x", 1) == 1);
    in.reset();
    const auto echoed = child.wait_output();
    CHECK(echoed.success() && echoed.out() == "x");
    sandcell::Descriptor pidfd;
    {
        auto slow = policy.spawn({"/bin/sleep", "1000"});
        pidfd = slow.pidfd();
        child = std::move(slow);
        child.signal(10);
        CHECK(child.wait().signal() == 10);
        child = policy.spawn({"/bin/sleep", "1000"});
        pidfd = child.pidfd();
    }
    pollfd watched{pidfd.get(), POLLIN, 0};
    CHECK(::poll(&watched, 1, 0) == 0);
    { const sandcell::Child gone = std::move(child); }
    CHECK(::poll(&watched, 1, 0) == 1);

    auto cell = policy.start();
    cell.run({"/bin/sh", "-c", "echo kept >/tmp/file"});
    CHECK(cell.run({"/bin/cat", "/tmp/file"}).out() == "kept\n" && cell.changes().empty());
    CHECK(thrown([&] { cell.freeze(); }) == SANDCELL_ERROR_UNSUPPORTED);
    CHECK(cell.report_json().find("\"host_uid\"") != std::string::npos && !cell.usage().memory_peak_bytes);
    CHECK(cell.home().front() == '/');
    {
        auto entry = cell.entry();
        entry.umask(077).chdir("/tmp").keep_fd(1);
        CHECK(thrown([&] { entry.chdir("tmp"); }) == SANDCELL_ERROR_CONFIG);
    }
    cell.kill();
    CHECK(thrown([&] { cell.run({"/bin/true"}); }) == SANDCELL_ERROR_IO);
    return 0;
}
