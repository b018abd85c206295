// The texts of the page for an address that does not exist, in both languages.

const WORDS = {
  zh: {
    title: "没有这个页面",
    why: "地址可能写错了；如果是文件的链接，它可能已经过期。",
  },
  en: {
    title: "There is no such page",
    why: "The address may be misspelt; if it is the link of a file, it may have expired.",
  },
};
