await 0; export const handler = async (event) => event; export default { other: () => 'by default' };
