/* A test that misbehaves in one of five ways, named by its first argument. It passes where it was contained. The
 * second argument is the source tree. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int writes_to_the_source_tree(const char *source) {
    char path[4096];
    snprintf(path, sizeof path, "%s/left-by-a-test", source);
    int fd = open(path, O_CREAT | O_WRONLY, 0644);
    printf("source tree: %s\n", fd < 0 ? strerror(errno) : "written to");
    return fd < 0 && errno == EROFS ? 0 : 1;
}

static int leaves_a_daemon(void) {
    int ready[2];
    char byte;
    if (pipe(ready) != 0) return 1;
    if (fork() == 0) {
        setsid();
        close(0), close(1), close(2), close(ready[0]);
        write(ready[1], "x", 1);
        close(ready[1]);
        sleep(1000);
        _exit(0);
    }
    close(ready[1]);
    return read(ready[0], &byte, 1) == 1 ? 0 : 1;
}

static int binds_a_fixed_port(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(8080)};
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int failed = bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 1);
    printf("port 8080: %s\n", failed ? strerror(errno) : "bound");
    /* Long enough for a test beside this one to want it, too. */
    usleep(300000);
    return failed;
}

static int fills_the_disk(void) {
    static char block[1 << 20];
    int fd = open("/tmp/filler", O_CREAT | O_WRONLY | O_TRUNC, 0644);
    long megabytes = 0;
    while (megabytes < 512 && write(fd, block, sizeof block) == (ssize_t)sizeof block) megabytes++;
    printf("disk: full after %ld MB\n", megabytes);
    return megabytes >= 512;
}

static int kills_its_parent(void) {
    pid_t parent = getppid();
    kill(parent, SIGKILL);
    kill(-1, SIGTERM);
    printf("parent: pid %d, %s\n", (int)parent, kill(parent, 0) == 0 ? "still there" : strerror(errno));
    return getppid() == parent ? 0 : 1;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    signal(SIGTERM, SIG_IGN);
    if (strcmp(what, "source") == 0) return writes_to_the_source_tree(argc > 2 ? argv[2] : ".");
    if (strcmp(what, "daemon") == 0) return leaves_a_daemon();
    if (strcmp(what, "port") == 0) return binds_a_fixed_port();
    if (strcmp(what, "disk") == 0) return fills_the_disk();
    if (strcmp(what, "parent") == 0) return kills_its_parent();
    fprintf(stderr, "usage: misbehave source|daemon|port|disk|parent [SOURCE-TREE]\n");
    return 2;
}
