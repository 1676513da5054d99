/* Plays a library that holds a POSIX lock inside the process it is preloaded into, as SQLite does: on the byte range of
   JETLITE_LOCK_FILE that SQLite's readers lock. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((constructor)) static void hold(void) {
  const char *path = getenv("JETLITE_LOCK_FILE");
  if (path == NULL) return;
  int fd = open(path, O_RDWR);
  struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 0x40000002, .l_len = 510};
  if (fd < 0 || fcntl(fd, F_SETLK, &lock) != 0) _exit(97);
}
